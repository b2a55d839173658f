//go:build e2e

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	. "github.com/onsi/gomega"

	"github.com/layersim/layersim/sim/check"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/report/artifacts"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// root is the way from the folder in which tests run to that of the repository.
const root = ".."

// library is the default of -scenarios.
const library = "scenarios"

// limit ends a scenario that hangs. Its steps have times of their own, so none should get here.
const limit = 30 * time.Minute

// seed is that of all runs. On a real cluster it decides nothing but ids and passwords.
const seed = 1

var (
	clusterFlag   = flag.String("cluster", "envtest", "what to run on: "+strings.Join(clusters, ", "))
	scenariosFlag = flag.String("scenarios", library, "file or folder of the scenarios, relative to the root of the repository")
	artifactsFlag = flag.String("artifacts", "out/e2e", "folder for what failed scenarios leave, relative to the root of the repository")
	keepFlag      = flag.Bool("keep", false, "keep the artifacts of scenarios that passed, too")
	progressFlag  = flag.String("progress", "", "file, such as a named pipe, to which a line goes for each step that a scenario begins")
	speedFlag     = flag.Float64("speed", live.Speed, "how many seconds of boots, pulls and builds pass in one; Kubernetes' own pauses stay")
)

// conformance are the scenarios with the label of that name: each of the main behaviours once, at its hardest moment.
var conformance = []string{
	"build-failure-three-retries",
	"label-revert",
	"secret-rotation/push-mid-build",
	"machine-set-scale-up",
	"paused-pool",
	"happy-path",
}

// slowest are those that take longest, of conformance and of what `make e2e` runs beside it. They come first, in this order, so
// that parallel processes end at about the same time.
var slowest = []string{
	"build-failure-three-retries",
	"label-revert",
	"secret-rotation/push-mid-build",
	"agent-evicted",
	"machine-set-scale-up",
}

func TestE2E(t *testing.T) {
	RegisterFailHandler(Fail)
	scenarios, err := load(*scenariosFlag)
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{artifacts: under(*artifactsFlag)}
	s.logs = filepath.Join(s.artifacts, fmt.Sprintf("_logs-%d", GinkgoParallelProcess())) // no scenario has such a name
	if *progressFlag != "" {
		progress, err := os.OpenFile(*progressFlag, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer progress.Close()
		s.progress = progress
	}
	if s.backend, err = newBackend(*clusterFlag, *speedFlag, s.logs, s.tell); err != nil {
		t.Fatal(err)
	}
	SynchronizedBeforeSuite(func() {
		if err := s.backend.ready(); err != nil {
			Fail(err.Error()) // once for all processes
		}
	}, func() {})
	for _, sc := range scenarios {
		at := types.CodeLocation{FileName: sc.Pos.File, LineNumber: sc.Pos.Line}
		It(sc.Name, labels(sc), priority(sc), at, SpecTimeout(limit), func(ctx SpecContext) { s.spec(ctx, sc) })
	}
	AfterSuite(func() { Expect(errors.Join(s.backend.stop(), os.RemoveAll(s.logs))).To(Succeed()) })
	RunSpecs(t, "layering on "+*clusterFlag)
}

// load reads the scenarios. The names of their files are those seen from the root of the repository, as everywhere.
func load(path string) (list []*scenario.Scenario, err error) {
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if err := os.Chdir(root); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Chdir(here)) }()
	if list, err = scenario.Load([]string{path}); err != nil {
		return nil, err
	}
	if path == library {
		for _, name := range slices.Concat(conformance, slowest) {
			if !slices.ContainsFunc(list, func(s *scenario.Scenario) bool { return s.Name == name }) {
				return nil, fmt.Errorf("the suite names %s, which the library doesn't have", name)
			}
		}
	}
	return list, nil
}

// under returns a path that is relative to the root of the repository.
func under(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(root, path)
}

// labels are those by which --label-filter chooses.
func labels(s *scenario.Scenario) Labels {
	var list Labels
	if s.Area != "" {
		list = append(list, "area:"+s.Area)
	}
	if slices.Contains(conformance, s.Name) {
		list = append(list, "conformance")
	}
	for _, need := range s.Needs {
		list = append(list, "needs:"+need)
	}
	if s.Span != (scenario.Span{}) {
		for _, name := range scenario.Releases {
			if s.Holds(name) {
				list = append(list, "release:"+name)
			}
		}
	}
	return list
}

// priority is the place in the order of specs, highest first; those of the same priority are shuffled.
func priority(s *scenario.Scenario) SpecPriority {
	if n := slices.Index(slowest, s.Name); n >= 0 {
		return SpecPriority(len(slowest) - n)
	}
	return 0
}

// suite is what the specs of one process share.
type suite struct {
	backend   backend
	artifacts string
	// logs is the folder in which the programs of the backend write what they say.
	logs string
	// progress, where not nil, is told what is being done: Ginkgo keeps what its parallel processes write until a spec is over.
	progress io.Writer
}

// tell writes a line to progress, at once, so that those of other processes don't get in between.
func (s *suite) tell(line string) {
	if s.progress != nil {
		_, _ = io.WriteString(s.progress, line+"\n") // who can't be told need not be told that
	}
}

// spec runs a scenario and tells Ginkgo what came of it.
func (s *suite) spec(ctx context.Context, sc *scenario.Scenario) {
	if err := run.Lacks(sc, *clusterFlag, s.backend.capabilities()); err != nil {
		Skip(err.Error())
	}
	left, err := artifacts.New(filepath.Join(s.artifacts, filepath.FromSlash(sc.Name)), s.logs)
	Expect(err).NotTo(HaveOccurred())
	result := s.run(ctx, sc)
	GinkgoWriter.Println(report.Line(result))
	s.tell(fmt.Sprintf("%s: %s (%s)", sc.Name, result.Verdict, (time.Duration(result.WallSeconds * float64(time.Second))).Round(time.Second)))
	if result.Verdict == report.Skipped {
		Skip(result.Err.Error())
	}
	failed := result.Verdict != report.Passed
	if !failed && !*keepFlag {
		return
	}
	err = left.Write(*clusterFlag, seed, result)
	if failed {
		text := message(result) + "\nartifacts: " + left.Path()
		if err != nil {
			text += "\n" + err.Error()
		}
		Fail(text)
	}
	Expect(err).NotTo(HaveOccurred())
}

// run runs a scenario. A cluster that something went wrong with isn't used again.
func (s *suite) run(ctx context.Context, sc *scenario.Scenario) *report.Result {
	start := time.Now()
	done := func() error { return nil }
	s.tell(sc.Name + ": making its cluster")
	observe := func(r *history.Record) {
		if r.Step != nil && r.Step.Event == check.Begin {
			s.tell(fmt.Sprintf("%s: step %d/%d, %s", sc.Name, r.Step.Index+1, len(sc.Steps), r.Step.Name))
		}
	}
	result := run.On(ctx, func(t scenario.Topology, o cluster.Options) (c *cluster.Cluster, err error) {
		c, done, err = s.backend.run(ctx, t, o)
		return c, err
	}, sc, run.Options{Seed: seed, Observe: observe}, func() time.Duration { return time.Since(start) })
	err := done()
	if ctx.Err() != nil { // then nothing could be removed, which needs no telling
		err = nil
		result.Verdict, result.Err = report.Errored, context.Cause(ctx)
	}
	broken := err != nil || result.Verdict == report.Errored
	if broken || result.Verdict == report.Failed || *keepFlag {
		err = errors.Join(err, s.backend.collect())
	}
	if broken {
		err = errors.Join(err, s.backend.stop())
	}
	if err != nil {
		result.Verdict, result.Err = report.Errored, errors.Join(result.Err, fmt.Errorf("after the run: %w", err))
	}
	return result
}

// message says what was wrong, as the text report does, but without the line of the verdict above and the sum of the verdicts
// below, which Ginkgo prints by itself.
func message(result *report.Result) string {
	var b strings.Builder
	suite := &report.Suite{Cluster: *clusterFlag, Seed: seed, Scenarios: []*report.Result{result}}
	if err := report.Text(&b, suite, report.TextOptions{}); err != nil {
		return err.Error()
	}
	_, body, found := strings.Cut(b.String(), "\n\n")
	end := strings.LastIndex(body, "\n\n")
	if !found || end < 0 {
		return b.String()
	}
	return body[:end]
}
