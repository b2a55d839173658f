package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/report/artifacts"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// runFlags are the flags of run, kept stable: scripts rely on them.
type runFlags struct {
	cluster              string
	compare              bool
	speed                float64
	parallel             int
	controllers          string
	release, templates   string
	keep, retain         bool
	seed                 uint64
	json, junit, history string
	html, artifacts      string
	verbose              bool

	shown *progress
}

// compareSpeed is the default of --speed with --compare: a boot takes longer than one of the controllers' pauses then. See
// package compare.
const compareSpeed = 30

func runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run PATH...",
		Short: "Run scenarios and say which passed",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.speed <= 0 || f.parallel < 0 {
				return fmt.Errorf("--speed %v, --parallel %d: speed must be more than 0, and parallel not less", f.speed, f.parallel)
			}
			if f.compare && !cmd.Flags().Changed("speed") {
				f.speed = compareSpeed
			}
			if f.release != "" && slices.Contains([]string{"bundled", "in-process", "bundled-processes", "deployed"}, f.controllers) {
				return fmt.Errorf("--release %q: it is for upstream's controllers; add --controllers DIR, the folder of their programs", f.release)
			}
			if f.controllers != "bundled" && f.cluster == "sim" {
				return fmt.Errorf("--controllers %q: the simulated cluster runs bundled controllers only; add --cluster envtest", f.controllers)
			}
			f.shown = newProgress(cmd.ErrOrStderr())
			backends, err := f.backends(cmd.Context())
			if err != nil {
				return err
			}
			scenarios, err := scenario.Load(args)
			if err != nil {
				return err
			}
			if err := f.writable(); err != nil {
				return err
			}
			return f.run(cmd.Context(), backends, scenarios, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.cluster, "cluster", "sim", "what to run on: sim, in memory and in virtual time; envtest, a real control plane; kind, a real cluster in containers. Several with commas between")
	flags.BoolVar(&f.compare, "compare", false, "with several clusters: fail where a scenario leaves other milestones than on the first")
	flags.Float64Var(&f.speed, "speed", 50, fmt.Sprintf("on a real cluster: how many seconds of boots, pulls and builds pass in one, %d where none is given with --compare; Kubernetes' own pauses stay", compareSpeed))
	flags.StringVar(&f.controllers, "controllers", "bundled", "on a real cluster: bundled, which are deployed on kind and else in-process; in-process, in this one; bundled-processes; deployed, as pods of a cluster of kind; image=`REF`, likewise, from an image on its node or an archive; or a DIR of programs with the same command line")
	flags.StringVar(&f.release, "release", "", "with --controllers DIR: the release of upstream's controllers in it, 4.18 ... main; the cluster is made as they need it")
	flags.StringVar(&f.templates, "templates", "", "with --release: `FOLDER` templates of upstream's repository; default DIR/templates")
	flags.BoolVar(&f.keep, "keep", false, "on kind: keep the cluster, which layersim down removes")
	flags.BoolVar(&f.retain, "retain", false, "on kind: keep a cluster that could not be created")
	flags.IntVar(&f.parallel, "parallel", 0, "how many scenarios run side by side; 0 is the cluster's default")
	flags.Uint64Var(&f.seed, "seed", 1, "seed of the schedule; the same seed gives the same run. A scenario's own seed comes before it")
	flags.StringVar(&f.json, "json", "", "write the results to `FILE` as JSON")
	flags.StringVar(&f.junit, "junit", "", "write the results to `FILE` as JUnit XML")
	flags.StringVar(&f.html, "html", "", "write a report with timelines to `FILE`, to be read in a browser")
	flags.StringVar(&f.history, "history", "", "write the history to `FILE` as JSON lines; with several scenarios to one file each, FILE-NAME")
	flags.StringVar(&f.artifacts, "artifacts", "", "let each scenario, passed or not, leave its history, timeline, requests to the registry and, on a real cluster, logs in `FOLDER`/NAME, which is emptied first; with several clusters in FOLDER/NAME/CLUSTER")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print the timeline of scenarios that passed, too")
	return cmd
}

// run runs scenarios one after the other, and reports even when it was interrupted.
func (f *runFlags) run(ctx context.Context, backends []backend, scenarios []*scenario.Scenario, stdout io.Writer) error {
	start := time.Now()
	wall := func() time.Duration { return time.Since(start) }
	suite := &report.Suite{Cluster: f.cluster, Seed: f.seed, Scenarios: []*report.Result{}}
	f.shown.start(len(scenarios) * len(backends))
	defer context.AfterFunc(ctx, func() { fmt.Fprintln(f.shown, "interrupted: ending what runs; another interrupt ends at once") })()
	var failed, broken bool
	var problems []error
	var compared *comparison
	if f.compare {
		var err error
		if compared, err = newComparison(); err != nil {
			return &brokenError{err}
		}
	}
	// Each scenario has a world of its own, so they can run side by side; each by itself stays single-threaded. A history
	// is written by whoever made it, and dropped as soon as nobody will ask for it: a large library would fill the memory.
	results := make([][]*report.Result, len(scenarios))
	written := make([]error, len(scenarios))
	work := make(chan int)
	var workers sync.WaitGroup
	slots := min(f.workers(backends), len(scenarios))
	for slot := range slots {
		workers.Go(func() {
			for i := range work {
				results[i], written[i] = f.one(ctx, backends, slot, scenarios[i], len(scenarios) > 1, compared, wall)
			}
		})
	}
	begun := 0
	for begun < len(scenarios) && ctx.Err() == nil {
		select {
		case work <- begun:
			begun++
		case <-ctx.Done():
		}
	}
	close(work)
	workers.Wait()
	if begun < len(scenarios) {
		problems = append(problems, fmt.Errorf("interrupted: %s not run", plural(len(scenarios)-begun, "scenario")))
	}
	problems = append(problems, written...)
	f.shown.say("ending the clusters")
	for _, b := range backends {
		problems = append(problems, b.close(), f.removeLogs(b, slots))
	}
	for _, list := range results[:begun] {
		for _, result := range list {
			failed = failed || result.Verdict == report.Failed
			broken = broken || result.Verdict == report.Errored
			suite.Scenarios = append(suite.Scenarios, result)
		}
	}
	if compared != nil {
		problems = append(problems, compared.stale())
	}
	f.shown.done()
	problems = append(problems, f.report(suite, stdout))
	if err := errors.Join(problems...); err != nil {
		return &brokenError{err}
	}
	switch {
	case broken:
		return status(statusBroken)
	case failed:
		return status(statusFailed)
	}
	return nil
}

// workers is how many scenarios run side by side.
func (f *runFlags) workers(backends []backend) int {
	if f.parallel > 0 {
		return f.parallel
	}
	n := backends[0].parallel()
	for _, b := range backends[1:] {
		n = min(n, b.parallel())
	}
	return n
}

// one runs one scenario on each of the clusters, and compares what happened there.
func (f *runFlags) one(ctx context.Context, backends []backend, slot int, s *scenario.Scenario, several bool,
	compared *comparison, wall func() time.Duration) (results []*report.Result, err error) {
	var problems []error
	begun := false
	for n, b := range backends {
		where := s.Name
		if len(backends) > 1 {
			where += " on " + b.name()
		}
		shown := f.shown.begin(where, len(s.Steps))
		var result *report.Result
		var left *artifacts.Folder
		if err := run.Lacks(s, b.name(), b.capabilities()); err != nil {
			result = report.NewResult(s, report.Skipped, err)
		} else {
			var err error
			left, err = f.begin(b, slot, s, len(backends) > 1, !begun)
			problems, begun = append(problems, err), true
			observe := func(r *history.Record) { f.shown.observe(shown, r) }
			result = b.run(ctx, slot, s, run.Options{Seed: f.seed, Release: f.release, Observe: observe}, wall)
		}
		if len(backends) > 1 {
			result.Cluster = b.name()
		}
		if compared != nil && n > 0 {
			problems = append(problems, compared.compare(results[0], backends[0].name(), result, b.name()))
		}
		if left != nil && result.Verdict != report.Skipped {
			problems = append(problems, f.leave(left, b, slot, result))
		}
		f.shown.end(shown, result.Verdict, report.Wrong(result))
		if f.history != "" && result.History != nil {
			file := f.history
			if several {
				file = historyFile(file, s.Name)
			}
			if len(backends) > 1 {
				file = historyFile(file, b.name())
			}
			problems = append(problems, writeFile(file, func(w io.Writer) error { return history.Write(w, result.History) }))
		}
		results = append(results, result)
	}
	for _, result := range results {
		if result.Verdict == report.Passed && !f.verbose && f.html == "" {
			result.History = nil
		}
	}
	return results, errors.Join(problems...)
}

// report writes the results wherever they are wanted.
func (f *runFlags) report(suite *report.Suite, stdout io.Writer) error {
	problems := []error{report.Text(stdout, suite, report.TextOptions{
		Color: isTerminal(stdout) && os.Getenv("NO_COLOR") == "", Verbose: f.verbose,
	})}
	if f.json != "" {
		problems = append(problems, writeFile(f.json, func(w io.Writer) error { return report.JSON(w, suite) }))
	}
	if f.junit != "" {
		problems = append(problems, writeFile(f.junit, func(w io.Writer) error { return report.JUnit(w, suite) }))
	}
	if f.html != "" {
		problems = append(problems, writeFile(f.html, func(w io.Writer) error { return report.HTML(w, suite) }))
	}
	return errors.Join(problems...)
}

// historyFile puts the name of a scenario between the name of a file and its extension.
func historyFile(file, name string) string {
	ext := filepath.Ext(file)
	return strings.TrimSuffix(file, ext) + "-" + strings.ReplaceAll(name, "/", "-") + ext
}

// writeFile creates a file and the folders above it.
func writeFile(file string, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("make the folder of %s: %w", file, err)
	}
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := errors.Join(write(out), out.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
