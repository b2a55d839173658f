//go:build live

package envtest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/envtest"
)

// Somebody takes the port of kube-apiserver, and even answers there, before kube-apiserver does: another one is tried. Then
// a program of the control plane is killed, which is told, and stops the rest.
func TestPortTakenOnceAndDeath(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	other.Config.ErrorLog = log.New(io.Discard, "", 0) // nobody trusts its certificate
	other.StartTLS()
	defer other.Close()
	var asked []string
	logs := t.TempDir()
	cp, err := envtest.Start(t.Context(), envtest.Options{Logs: logs}.WithPorts(func(program string) (int, error) {
		asked = append(asked, program)
		if len(asked) == 2 { // kube-apiserver, the first time
			return other.Listener.Addr().(*net.TCPAddr).Port, nil
		}
		return free(t), nil
	}))
	must(t, err)
	defer cp.Stop()
	if got := strings.Join(asked, " "); got != "etcd kube-apiserver etcd kube-apiserver" {
		t.Errorf("asked for ports of %s, want a second attempt", got)
	}
	c, err := client.New(cp.Config, client.Options{})
	must(t, err)
	must(t, c.List(t.Context(), &corev1.NamespaceList{}))
	must(t, cp.Err())
	if n := len(running(t, os.TempDir())); n < 2 {
		t.Errorf("%d processes run, and some should be found", n)
	}

	server := pid(t, "kube-apiserver")
	must(t, syscall.Kill(pid(t, "etcd"), syscall.SIGKILL))
	select {
	case <-cp.Died():
	case <-time.After(time.Minute):
		t.Fatal("nobody noticed that etcd was killed")
	}
	err = cp.Err()
	if !errors.Is(err, envtest.ErrDied) || !errors.Is(err, cluster.ErrBroken) {
		t.Errorf("got %v, want an ErrDied that breaks the cluster", err)
	}
	for _, want := range []string{"etcd ended by signal 9 (killed)", "its log is " + filepath.Join(logs, "etcd.log"), "\n\tetcd: {"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	// Without etcd kube-apiserver would answer nobody for a minute.
	for end := time.Now().Add(time.Minute); syscall.Kill(server, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("kube-apiserver still runs")
		}
	}
	must(t, cp.Stop())
	nothingLeft(t)
}

// Somebody has the port for good: one error says so, after a few attempts.
func TestPortInUse(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	other, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer other.Close()
	asked := 0
	cp, err := envtest.Start(t.Context(), envtest.Options{}.WithPorts(func(program string) (int, error) {
		if program != "etcd" {
			return free(t), nil
		}
		asked++
		return other.Addr().(*net.TCPAddr).Port, nil
	}))
	if err == nil {
		t.Fatal("it started", cp.Stop())
	}
	if !strings.Contains(err.Error(), "etcd ended by exit status") || !strings.Contains(err.Error(), "address already in use") || asked != 3 {
		t.Errorf("after %d attempts: %v", asked, err)
	}
	nothingLeft(t)
}

// A flag that kube-apiserver doesn't have: what it says is told at once, and only that.
func TestProgramRefuses(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	began := time.Now()
	cp, err := envtest.Start(t.Context(), envtest.Options{Arguments: map[string][]string{"moon": {"full"}}})
	if err == nil {
		t.Fatal("it started", cp.Stop())
	}
	if !errors.Is(err, envtest.ErrDied) || !strings.Contains(err.Error(), "kube-apiserver ended by exit status 1") ||
		!strings.Contains(err.Error(), "unknown flag: --moon") || strings.Contains(err.Error(), "etcd") {
		t.Error(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s to say so", took)
	}
	nothingLeft(t)
}

// A directory whose owner and whose watchdog were killed is removed, and what still runs there is killed; but not what
// only has the process ID of a program that has ended, and no directory that is in use.
func TestSweep(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("LAYERSIM_CONTROLPLANE", fakes(t))
	left, used := filepath.Join(os.TempDir(), "layersim-controlplane-left"), filepath.Join(os.TempDir(), "layersim-controlplane-used")
	for _, dir := range []string{left, used} {
		must(t, os.Mkdir(dir, 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600))
	}
	lock, err := os.Open(filepath.Join(used, "lock"))
	must(t, err)
	defer lock.Close()
	must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	orphan, stranger := sleeper(t, left), sleeper(t, "elsewhere")
	must(t, os.WriteFile(filepath.Join(left, "etcd.pid"), fmt.Appendln(nil, orphan.Pid), 0o600))
	must(t, os.WriteFile(filepath.Join(left, "kube-apiserver.pid"), fmt.Appendln(nil, stranger.Pid), 0o600))

	if cp, err := envtest.Start(t.Context(), envtest.Options{}); err == nil {
		t.Fatal("a program that does nothing started", cp.Stop())
	}
	state, err := orphan.Wait()
	must(t, err)
	if w := state.Sys().(syscall.WaitStatus); !w.Signaled() || w.Signal() != syscall.SIGKILL {
		t.Errorf("the orphan ended with %s", state)
	}
	must(t, stranger.Signal(syscall.SIGTERM))
	state, err = stranger.Wait()
	must(t, err)
	if w := state.Sys().(syscall.WaitStatus); w.Signal() != syscall.SIGTERM {
		t.Errorf("the stranger ended with %s before its time", state)
	}
	if entries, err := os.ReadDir(os.TempDir()); err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(used) {
		t.Errorf("left %v, %v; want what is in use", entries, err)
	}
}

// sleeper starts a process that has an argument, and waits for its standard input for the rest of the test.
func sleeper(t *testing.T, argument string) *os.Process {
	t.Helper()
	in, out, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { _ = out.Close() })
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "read -r _", argument}, &os.ProcAttr{Files: []*os.File{in}})
	must(t, errors.Join(err, in.Close()))
	return p
}

// fakes are programs that say something and end.
func fakes(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho I am not $0 >&2\nexit 3\n"), 0o700))
	}
	return dir
}

// free is a port that is free now.
func free(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// pid is the process ID of a program of the only control plane.
func pid(t *testing.T, program string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(os.TempDir(), "*", program+".pid"))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("%s: %v", program, files)
	}
	text, err := os.ReadFile(files[0])
	must(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	must(t, err)
	return n
}

// running are the processes whose arguments name a directory.
func running(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	var found []string
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && bytes.Contains(text, []byte(dir)) {
			found = append(found, file+" "+strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

// nothingLeft fails the test where a process still runs, or a file is left.
func nothingLeft(t *testing.T) {
	t.Helper()
	if found := running(t, os.TempDir()); len(found) > 0 {
		t.Errorf("still running:\n%s", strings.Join(found, "\n"))
	}
	if entries, err := os.ReadDir(os.TempDir()); err != nil || len(entries) > 0 {
		t.Errorf("left: %v %v", entries, err)
	}
}
