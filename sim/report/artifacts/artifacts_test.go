package artifacts_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/report/artifacts"
)

// read returns all files below a folder.
func read(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, folder+"/")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestWrite(t *testing.T) {
	logs, folder := t.TempDir(), filepath.Join(t.TempDir(), "pool", "once")
	write(t, filepath.Join(folder, "logs", "etcd.log"), "an earlier run's")
	write(t, filepath.Join(filepath.Dir(folder), "twice", "history.jsonl"), "another's")
	write(t, filepath.Join(logs, "etcd.log"), "before\n")
	write(t, filepath.Join(logs, "silent.log"), "before\n")
	write(t, filepath.Join(logs, "anew.log"), "before\n")
	write(t, filepath.Join(logs, "node", "earlier.log"), "collected for an earlier scenario\n")
	f, err := artifacts.New(folder, logs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) || f.Path() != folder {
		t.Errorf("%s, %s: %v, want that it is gone", folder, f.Path(), err)
	}
	write(t, filepath.Join(logs, "etcd.log"), "before\nmeanwhile\n")
	write(t, filepath.Join(logs, "anew.log"), "anew\n")
	write(t, filepath.Join(logs, "builder.log"), "all\n")
	write(t, filepath.Join(logs, "node", "pods", "0.log"), "collected\n")
	h := &history.History{Header: history.Header{Scenario: "pool/once", Seed: 3}, Records: []history.Record{
		{Seq: 1, Time: 5 * time.Second, Step: &history.Step{Name: "push", Event: "begin"}},
		{Seq: 2, Time: 6500 * time.Millisecond, Registry: &history.Registry{
			Caller: "build", Account: "pusher", Method: "PUT", Host: "quay.io", Path: "/v2/x/manifests/y", Status: 201, Bytes: 7}},
	}}
	if err := f.Write("sim", 1, &report.Result{Name: "pool/once", File: "once.yaml", Verdict: report.Passed, History: h}); err != nil {
		t.Fatal(err)
	}
	got := read(t, filepath.Dir(folder))
	for name, text := range map[string]string{
		"once/timeline.txt":  "once.yaml, seed 3\n",
		"once/history.jsonl": `"scenario":"pool/once"`,
	} {
		if !strings.Contains(got[name], text) {
			t.Errorf("%s doesn't say %q:\n%s", name, text, got[name])
		}
		delete(got, name)
	}
	got["once/registry.txt"] = strings.Join(strings.Fields(got["once/registry.txt"]), " ")
	want := map[string]string{
		"once/registry.txt": "SECONDS CALLER ACCOUNT METHOD STATUS BYTES PATH " +
			"1.500 build pusher PUT 201 7 quay.io/v2/x/manifests/y",
		"once/logs/etcd.log":        "meanwhile\n",
		"once/logs/anew.log":        "anew\n",
		"once/logs/builder.log":     "all\n",
		"once/logs/node/pods/0.log": "collected\n",
		"twice/history.jsonl":       "another's",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(folder, "logs", "etcd.log")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a log that only its owner may read has mode %s: %v", info.Mode(), err)
	}
}

// A scenario that could not be run leaves why, and one error tells of a folder that can't be made.
func TestWriteWithout(t *testing.T) {
	root := t.TempDir()
	f, err := artifacts.New(filepath.Join(root, "x"), "")
	if err != nil {
		t.Fatal(err)
	}
	r := &report.Result{Name: "x", File: "x.yaml", Verdict: report.Errored, Err: errors.New("there is no cluster")}
	if err := f.Write("kind", 2, r); err != nil {
		t.Fatal(err)
	}
	if got := read(t, root); len(got) != 1 || !strings.Contains(got["x/timeline.txt"], "x.yaml, seed 2\n    there is no cluster") {
		t.Errorf("%q, want a timeline only, with the reason", got)
	}

	if f, err = artifacts.New(filepath.Join(root, "y", "z"), ""); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "y"), "in the way")
	r.History = &history.History{}
	if err := f.Write("kind", 1, r); err == nil || strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("error %q, want one line", err)
	}
}
