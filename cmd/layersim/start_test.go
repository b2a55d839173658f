//go:build live

package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/layersim/layersim/sim/cluster/envtest"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// An interrupt while a program has started and doesn't answer yet: nobody waits for it any more, and it is ended.
func TestInterruptedWhileStarting(t *testing.T) {
	t.Parallel()
	s := newSession(t, t.TempDir())
	s.programs("while :; do sleep 1; done\n")
	s.start()
	s.until(starting)
	s.started("etcd")
	s.signal(os.Interrupt)
	s.until("^interrupted: ending what runs")
	s.ends(3, 30*time.Second)
	s.says("start control plane: interrupt signal received")
	s.leavesNothing()
}

// The same a bit later: etcd runs, and kube-apiserver has started.
func TestInterruptedBetweenPrograms(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	s.until(starting)
	s.started("kube-apiserver")
	s.signal(syscall.SIGTERM)
	s.ends(3, time.Minute)
	s.says("start control plane: terminated signal received")
	s.leavesNothing()
}

// started waits until a program of the control plane runs.
func (s *session) started(program string) {
	s.t.Helper()
	pattern := filepath.Join(s.root(), "layersim-controlplane-*", program+".pid")
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		files, err := filepath.Glob(pattern)
		if err != nil || time.Now().After(end) {
			s.t.Fatalf("%s doesn't start: %v", program, err)
		}
		if len(files) > 0 {
			if text, err := os.ReadFile(files[0]); err == nil && len(text) > 0 {
				return
			}
		}
	}
}

// Whatever a run has come to: if the control plane died, that is told, and nothing else.
func TestDeathWins(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x.yaml")
	text := strings.Replace(endless, "  - wait for ever: {wait: 100000h}\n", "never:\n  - it pauses: {mcp worker: {where: object.spec.paused}}\n", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	scenarios, err := scenario.Load([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	for what, o := range map[string]run.Options{"failed": {}, "error": {Release: "none"}} {
		t.Run(what, func(t *testing.T) {
			b := &onEnvtest{speed: 50, out: io.Discard, planes: map[int]*envtest.Plane{}, files: map[int][]string{}}
			plane, err := b.take(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = plane.Stop() }() // it was stopped
			b.give(0, plane)
			s := &session{t: t}
			asked := 0
			result := b.run(t.Context(), 0, scenarios[0], o, func() time.Duration {
				if asked++; asked == 2 { // the run is over, but for its cleaning up
					s.kill(s.etcd())
					for plane.Err() == nil {
						time.Sleep(10 * time.Millisecond)
					}
				}
				return 0
			})
			if result.Verdict != report.Errored || !errors.Is(result.Err, envtest.ErrDied) || len(result.Failures) > 0 ||
				!strings.HasPrefix(result.Err.Error(), "the control plane died: etcd ended by signal 9 (killed)") {
				t.Errorf("%s, %v, %v", result.Verdict, result.Err, result.Failures)
			}
			if len(b.planes) > 0 {
				t.Error("it is to be used again")
			}
			if _, err := os.Stat(s.tmp); !errors.Is(err, os.ErrNotExist) || len(s.running()) > 0 {
				t.Errorf("left: %s, %v, %v", s.tmp, err, s.running())
			}
		})
	}
}

// etcd finds the one of this process, and its directory.
func (s *session) etcd() (program int) {
	s.t.Helper()
	wrapper := 0
	s.each(func(pid, parent int, arguments string) {
		if _, dir, found := strings.Cut(arguments, " --data-dir="); found && parent == os.Getpid() {
			wrapper = pid
			s.tmp, _, _ = strings.Cut(dir, "/data ")
		}
	})
	s.each(func(pid, parent int, _ string) {
		if parent == wrapper {
			program = pid
		}
	})
	if wrapper == 0 || program == 0 {
		s.t.Fatal("etcd doesn't run")
	}
	return program
}
