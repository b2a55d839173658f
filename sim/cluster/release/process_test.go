package release

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A program that empties its directory of certificates leaves the machine's alone, whether that is there or not.
func TestChangesAreHidden(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("mount namespaces need Linux")
	}
	for _, there := range []bool{true, false} {
		scratch := t.TempDir()
		etc := filepath.Join(t.TempDir(), "etc")
		docker := filepath.Join(etc, "docker")
		if err := os.Mkdir(etc, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(etc, "hosts"), []byte("kept"), 0o644); err != nil {
			t.Fatal(err)
		}
		precious := filepath.Join(docker, "certs.d", "ca.crt")
		if there {
			if err := os.MkdirAll(filepath.Dir(precious), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(precious, []byte("precious"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		program := []string{"/bin/sh", "-c", `set -e
			cat "$0/hosts"
			mkdir -p "$0/docker/certs.d/registry" && echo ours > "$0/docker/certs.d/registry/ca.crt"
			cat "$0/docker/certs.d/registry/ca.crt"
			rm -r "$0/docker/certs.d"`, etc}
		cmd, err := hiding(t.Context(), docker, scratch, program)
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != "keptours\n" {
			t.Fatalf("there=%v: the program ended with %v and said %q", there, err, out)
		}
		switch content, err := os.ReadFile(precious); {
		case there && string(content) != "precious":
			t.Errorf("the program removed the machine's own: %v", err)
		case !there && !os.IsNotExist(err):
			t.Errorf("the program left something behind: %v", err)
		}
		if _, err := os.Stat(docker); !there && !os.IsNotExist(err) {
			t.Errorf("%s was made: %v", docker, err)
		}
	}
}

func TestCommandRefusesWhatIsNoProgram(t *testing.T) {
	r, err := For(Main)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	p := r.Processes(Run{Scratch: t.TempDir()})[0]
	if _, err := p.Command(t.Context(), folder); err == nil || !strings.Contains(err.Error(), p.Name) {
		t.Errorf("a missing program: %v", err)
	}
	if err := os.WriteFile(filepath.Join(folder, p.Name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Command(t.Context(), folder); err == nil || !strings.Contains(err.Error(), "is not a program") {
		t.Errorf("a file that can't be run: %v", err)
	}
}

func TestControllersVersion(t *testing.T) {
	for said, want := range map[string]string{
		"MachineConfigController v0.0.0-was-not-built-properly-was-not-built-properly": Unstamped,
		"MachineConfigController v4.18.0-202502111734-dirty-0123456789abcdef":          "v4.18.0-202502111734-dirty",
		"MachineConfigController machine-config-daemon-4.6.0-202006240615.p0-2-gabc":   "machine-config-daemon-4.6.0-202006240615.p0-2-gabc",
		"nothing of use here": "",
	} {
		folder := t.TempDir()
		script := "#!/bin/sh\n[ \"$1\" = version ] && echo '" + said + "'\n"
		if err := os.WriteFile(filepath.Join(folder, Controller), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		got, err := ControllersVersion(t.Context(), folder)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", said, got, err, want)
		}
	}
}
