//go:build live

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/cluster/envtest"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/cluster/release"
	"github.com/layersim/layersim/sim/report"
)

// system is the layering controllers of a run, as they are put on a real cluster. The zero system is the bundled ones, in this
// process.
type system struct {
	program    func(process string) *live.Program
	plane      envtest.PlaneOptions
	artifacts  string
	foundation live.Foundation
	// deployed, where not "", are controllers that run in the cluster; see [kind.PlaneOptions].
	deployed string
	// minimum is the least time that a build takes.
	minimum time.Duration
	// noMachineConfigNodes: the release doesn't have them.
	noMachineConfigNodes bool
	// defects are what is known to be wrong with upstream's controllers.
	defects []release.Defect
}

// judge gives a failed result the verdict known if it failed by known defects of a release only, and fails one that should have.
func (s *system) judge(result *report.Result, name string) {
	if len(s.defects) == 0 || result.Verdict != report.Passed && result.Verdict != report.Failed {
		return
	}
	var checks []string
	for _, f := range result.Failures {
		checks = append(checks, f.Check)
	}
	because, err := release.Known(s.defects, name, result.Name, checks)
	switch {
	case err != nil:
		result.Verdict = report.Failed
		result.Failures = append(result.Failures, report.Failure{Check: "known defects", Message: err.Error(), Revision: result.Revisions})
	case because != "":
		result.Verdict, result.Err = report.Known, errors.New(because)
	}
}

// system says how the flags want the layering controllers to be run.
func (f *runFlags) system(ctx context.Context) (system, error) {
	folder := f.controllers
	reference, ofImage := strings.CutPrefix(folder, "image=")
	switch {
	case folder == "", folder == "bundled", folder == "in-process":
		return system{artifacts: f.artifacts}, nil
	case ofImage && f.release != "":
		return system{}, fmt.Errorf("--controllers %q: with --release, controllers run from a folder of programs only", f.controllers)
	case ofImage:
		return system{artifacts: f.artifacts, deployed: reference}, nil
	case folder == "bundled-processes", folder == "deployed":
		self, err := os.Executable()
		if err != nil {
			return system{}, &brokenError{fmt.Errorf("find the controllers: %w", err)}
		}
		folder = filepath.Dir(self)
	}
	for _, name := range release.Programs {
		file := filepath.Join(folder, name)
		if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return system{}, fmt.Errorf("--controllers %q: %s is not a program: give bundled, in-process, bundled-processes, deployed (built by `make live`), "+
				"image=REF, or a folder that holds machine-config-controller and machine-os-builder", f.controllers, file)
		}
	}
	if f.controllers == "deployed" {
		return system{artifacts: f.artifacts, deployed: folder}, nil
	}
	if f.release == "" {
		return system{artifacts: f.artifacts, program: func(name string) *live.Program { return bundledProgram(folder, name) }}, nil
	}
	return f.upstream(ctx, folder)
}

// bundledProgram runs a program with the command line of this repository's.
func bundledProgram(folder, name string) *live.Program {
	if !slices.Contains(release.Programs, name) {
		return nil
	}
	return &live.Program{
		Lease: client.ObjectKey{Namespace: layering.Namespace, Name: name},
		Command: func(s live.Surroundings) (*exec.Cmd, error) {
			file, err := filepath.Abs(filepath.Join(folder, name))
			if err != nil {
				return nil, err
			}
			cmd := exec.CommandContext(s.Context, file, "start", "--kubeconfig="+s.Kubeconfig, "--metrics-listen-address=127.0.0.1:0")
			cmd.Env = []string{"HOME=" + s.Scratch, "TMPDIR=" + s.Scratch, "KUBECONFIG=" + s.Kubeconfig, "POD_NAME=" + name + "-0"}
			return cmd, nil
		},
	}
}

// upstream runs upstream's programs of a release.
func (f *runFlags) upstream(ctx context.Context, folder string) (system, error) {
	r, err := release.For(f.release)
	if err != nil {
		return system{}, fmt.Errorf("--release: %w", err)
	}
	templates, err := filepath.Abs(cmp.Or(f.templates, filepath.Join(folder, "templates")))
	if err != nil {
		return system{}, err
	}
	if info, err := os.Stat(templates); err != nil || !info.IsDir() {
		return system{}, fmt.Errorf("--templates %q: %s is not a folder: give the folder templates of upstream's repository, of release %s",
			f.templates, templates, f.release)
	}
	version, err := release.ControllersVersion(ctx, folder)
	if err != nil {
		return system{}, fmt.Errorf("--controllers %q: %w", f.controllers, err)
	}
	crds, err := r.CRDs()
	if err != nil {
		return system{}, &brokenError{err}
	}
	defects, err := release.Defects()
	if err != nil {
		return system{}, &brokenError{err}
	}
	s := system{artifacts: f.artifacts, defects: defects, plane: envtest.PlaneOptions{CRDs: crds}, minimum: release.MinimumBuild, noMachineConfigNodes: !r.MachineConfigNodes}
	for _, o := range r.Objects(release.Parameters{BaseImage: "none"}) {
		if o.GetObjectKind().GroupVersionKind().Kind == "Namespace" {
			s.plane.Namespaces = append(s.plane.Namespaces, o.GetName())
		}
	}
	s.foundation = func(ctx context.Context, admin client.Client, facts live.Facts) error {
		return release.Install(ctx, admin, r.Objects(release.Parameters{BaseImage: facts.BaseImage, Controllers: version, Trust: facts.Trust}))
	}
	s.program = func(name string) *live.Program {
		if !slices.Contains(release.Programs, name) {
			return nil
		}
		return &live.Program{
			Lease: client.ObjectKey{Namespace: layering.Namespace, Name: name},
			Grace: 35 * time.Second, // the builder of 4.18 takes 30 s
			Command: func(s live.Surroundings) (*exec.Cmd, error) {
				for _, p := range r.Processes(release.Run{
					KubeConfig: map[string]string{name: s.Kubeconfig}, Templates: templates, Scratch: s.Scratch, Trust: s.Trust,
				}) {
					if p.Name == name {
						return p.Command(s.Context, folder)
					}
				}
				return nil, fmt.Errorf("release %s has no %s", r.Name, name)
			},
		}
	}
	return s, nil
}
