//go:build live

package envtest_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/envtest"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/scenario"
)

// Whatever fails because the control plane died says that it died: a step, the end of the run, and the next run.
func TestDeathWins(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	plane, err := envtest.NewPlane(t.Context(), envtest.PlaneOptions{})
	must(t, err)
	defer func() { nothingLeft(t) }()
	defer func() { must(t, plane.Stop()) }()
	topology := scenario.Topology{Nodes: []scenario.Node{{Name: "worker", Count: 1, Roles: []string{"worker"}}}}
	c, done, err := plane.Run(t.Context(), topology, live.Options{Speed: 50}, cluster.Options{Seed: 1})
	must(t, err)
	must(t, syscall.Kill(pid(t, "etcd"), syscall.SIGKILL))
	for end := time.Now().Add(time.Minute); plane.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody noticed that etcd was killed")
		}
	}
	var step error
	for end := time.Now().Add(time.Minute); step == nil && time.Now().Before(end); {
		_, step = c.Engine.Step()
	}
	if !errors.Is(step, envtest.ErrDied) || !errors.Is(step, cluster.ErrBroken) {
		t.Errorf("a step says %v", step)
	}
	if err := done(); err != plane.Err() {
		t.Errorf("the end of the run says %v", err)
	}
	c, done, err = plane.Run(t.Context(), topology, live.Options{Speed: 50}, cluster.Options{Seed: 2})
	if err != plane.Err() {
		t.Errorf("the next run says %v, with a cluster: %v", err, c != nil)
	}
	if err := done(); err != plane.Err() {
		t.Errorf("the end of the next run says %v", err)
	}
}

// The same for what is made on a control plane before the first run, of which nothing is left then.
func TestDeathWhileSettling(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var namespaces []string
	for n := range 2000 { // so that it takes its time
		namespaces = append(namespaces, fmt.Sprintf("namespace-%d", n))
	}
	killed := make(chan error, 1)
	go func() {
		program, err := started("kube-scheduler")
		if err == nil {
			time.Sleep(2 * time.Second)
			err = syscall.Kill(program, syscall.SIGKILL)
		}
		killed <- err
	}()
	plane, err := envtest.NewPlane(t.Context(), envtest.PlaneOptions{Namespaces: namespaces})
	must(t, <-killed)
	if err == nil {
		t.Fatal("it started", plane.Stop())
	}
	if !errors.Is(err, envtest.ErrDied) || !strings.Contains(err.Error(), "kube-scheduler ended by signal 9") || strings.Contains(err.Error(), "namespace") {
		t.Error(err)
	}
	nothingLeft(t)
}

// A start that nobody wants any more, while a program has started and doesn't answer, and one whose first program ends.
func TestStartGivenUp(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	programs := fakes(t)
	t.Setenv("LAYERSIM_CONTROLPLANE", programs)
	_, err := envtest.Start(t.Context(), envtest.Options{})
	if want := "start control plane: the control plane died: etcd ended by exit status 3\n\tetcd: I am not "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	nothingLeft(t)

	must(t, os.WriteFile(filepath.Join(programs, "etcd"), []byte("#!/bin/sh\nwhile [ \"$*\" != --help ]; do sleep 1; done\n"), 0o700))
	ctx, cancel := context.WithCancelCause(t.Context())
	over, began := errors.New("it is late"), time.Now()
	go func() {
		_, err := started("etcd")
		cancel(cmp.Or(err, over))
	}()
	_, err = envtest.Start(ctx, envtest.Options{})
	if !errors.Is(err, over) || errors.Is(err, envtest.ErrDied) {
		t.Errorf("got %v, want %v", err, over)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s to give up", took)
	}
	nothingLeft(t)
}

// started waits until a program of the only control plane runs, and returns its process ID.
func started(program string) (int, error) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		files, _ := filepath.Glob(filepath.Join(os.TempDir(), "*", program+".pid")) // the pattern is right
		for _, file := range files {
			text, _ := os.ReadFile(file) // later, if it can't be read
			if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				return n, nil
			}
		}
		if time.Now().After(end) {
			return 0, fmt.Errorf("%s doesn't start", program)
		}
	}
}
