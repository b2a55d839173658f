//go:build live

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/envtest"
	"github.com/layersim/layersim/sim/cluster/kind"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// live returns a kind of real cluster.
func (f *runFlags) live(ctx context.Context, name string) (backend, error) {
	flags := *f
	if name == kind.Name && flags.controllers == "bundled" {
		flags.controllers = "deployed"
	}
	controllers, err := flags.system(ctx)
	if err != nil {
		return nil, err
	}
	live.Quieten()
	if name == kind.Name {
		if err := kind.Room(max(f.parallel, 1)); err != nil {
			return nil, err
		}
		return &onKind{speed: f.speed, system: controllers, keep: f.keep, retain: f.retain, out: f.shown, planes: map[int]*kind.Plane{}}, nil
	}
	if controllers.deployed != "" {
		return nil, fmt.Errorf("--controllers %q: pods need a kubelet, which %s has not; add --cluster kind", f.controllers, name)
	}
	if err := builtPlane(ctx, os.Stdin, os.Stderr); err != nil {
		return nil, &brokenError{err}
	}
	return &onEnvtest{speed: f.speed, system: controllers, out: f.shown, planes: map[int]*envtest.Plane{}, files: map[int][]string{}}, nil
}

// builtPlane makes sure that there is a control plane to start. Where there is somebody to ask, and a checkout to build it
// from, it offers to do that.
func builtPlane(ctx context.Context, in, out *os.File) error {
	_, missing := envtest.Binaries()
	build, found := checkout(filepath.Join("hack", "controlplane", "build"))
	if !errors.Is(missing, envtest.ErrNotBuilt) || !isTerminal(in) || !isTerminal(out) || !found {
		return missing
	}
	fmt.Fprintf(out, "layersim: %v.\nDownload or build it now? Building takes about eight minutes, once a machine. [y/N] ", missing)
	var answer string
	if _, err := fmt.Fscanln(in, &answer); err != nil || !strings.HasPrefix(strings.ToLower(answer), "y") {
		return missing
	}
	cmd := exec.CommandContext(ctx, build)
	cmd.Stdout, cmd.Stderr = out, out
	// An interrupt is for this program, which then ends the compilers, too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the control plane: %w", cmp.Or(context.Cause(ctx), err))
	}
	_, missing = envtest.Binaries()
	return missing
}

// checkout finds a program of the repository that this one is run or was built from.
func checkout(name string) (string, bool) {
	folders := []string{"."}
	if self, err := os.Executable(); err == nil {
		folders = append(folders, filepath.Join(filepath.Dir(self), ".."))
	}
	for _, folder := range folders {
		if file, err := filepath.Abs(filepath.Join(folder, name)); err == nil && isFile(file) {
			return file, true
		}
	}
	return "", false
}

// onEnvtest runs scenarios on control planes, one for each slot. They are kept from run to run.
type onEnvtest struct {
	system
	speed float64
	out   io.Writer

	mu     sync.Mutex
	planes map[int]*envtest.Plane
	// files are the logs of a slot's control plane.
	files map[int][]string
}

// take returns a slot's control plane, which is nobody's then.
func (b *onEnvtest) take(ctx context.Context, slot int) (*envtest.Plane, error) {
	b.mu.Lock()
	plane := b.planes[slot]
	delete(b.planes, slot)
	b.mu.Unlock()
	if plane != nil {
		return plane, nil
	}
	o := b.plane
	if b.artifacts != "" {
		o.Logs = logsOf(b.artifacts, envtest.Name, slot)
	}
	begun := time.Now()
	fmt.Fprintf(b.out, "envtest: starting control plane %d\n", slot+1)
	plane, err := envtest.NewPlane(ctx, o)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(b.out, "envtest: control plane %d is ready after %.1f s\n", slot+1, time.Since(begun).Seconds())
	if err := b.note(slot, o.Logs); err != nil {
		return nil, errors.Join(err, plane.Stop())
	}
	return plane, nil
}

// note keeps in mind which files the programs of a slot's control plane write, before there are others.
func (b *onEnvtest) note(slot int, logs string) error {
	if logs == "" {
		return nil
	}
	entries, err := os.ReadDir(logs)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files[slot] = nil
	for _, e := range entries {
		b.files[slot] = append(b.files[slot], e.Name())
	}
	return nil
}

// lasting are the logs of the slot's control plane, if it has one.
func (b *onEnvtest) lasting(slot int) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.planes[slot] == nil {
		return nil
	}
	return b.files[slot]
}

func (*onEnvtest) collect(int) error { return nil }

func (b *onEnvtest) give(slot int, plane *envtest.Plane) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.planes[slot] = plane
}

func (b *onEnvtest) close() error {
	var errs []error
	for _, slot := range slices.Sorted(maps.Keys(b.planes)) {
		errs = append(errs, b.planes[slot].Stop())
	}
	return errors.Join(errs...)
}

func (*onEnvtest) name() string           { return envtest.Name }
func (*onEnvtest) capabilities() []string { return live.Capabilities }

// parallel: most of a run is waiting for pauses that controllers make, so that two can share a core.
func (*onEnvtest) parallel() int { return 2 * runtime.GOMAXPROCS(0) }

func (b *onEnvtest) run(ctx context.Context, slot int, s *scenario.Scenario, o run.Options, wall func() time.Duration) *report.Result {
	plane, err := b.take(ctx, slot)
	if err != nil {
		return report.NewResult(s, report.Errored, err)
	}
	done := func() error { return nil }
	result := run.On(ctx, func(t scenario.Topology, co cluster.Options) (c *cluster.Cluster, err error) {
		co.NoMachineConfigNodes = b.noMachineConfigNodes
		c, done, err = plane.Run(ctx, t, live.Options{Speed: b.speed, Program: b.program, MinimumBuild: b.minimum, Foundation: b.foundation}, co)
		return c, err
	}, s, o, wall)
	b.judge(result, o.Release)
	err = done()
	if plane.Err() != nil {
		// Whatever else was found came of that.
		result.Verdict, result.Err, result.Failures = report.Errored, plane.Err(), nil
		if b.artifacts == "" {
			result.Err = fmt.Errorf("%w\n--artifacts FOLDER keeps all that it said", result.Err)
		}
	}
	if err == nil && result.Verdict != report.Errored {
		b.give(slot, plane)
		return result
	}
	// A control plane that something went wrong with isn't used again.
	if stopErr := plane.Stop(); err == nil {
		err = stopErr
	}
	if err != nil && result.Err == nil {
		result.Verdict, result.Err = report.Errored, fmt.Errorf("after the run: %w", err)
	}
	return result
}
