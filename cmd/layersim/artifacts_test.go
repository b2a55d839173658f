package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// talkative is a cluster of which one program goes on from run to run, and others begin anew with each run, the second with
// just what the first said, the third with more. What its kubelet said has to be collected.
type talkative struct {
	simulated
	kind, root string
	runs       int
	etcd       *os.File
}

func (b *talkative) name() string         { return b.kind }
func (b *talkative) lasting(int) []string { return []string{"etcd.log"} }
func (b *talkative) close() error         { return b.etcd.Close() }

func (b *talkative) collect(slot int) error {
	node := filepath.Join(logsOf(b.root, b.kind, slot), "node")
	return errors.Join(os.Mkdir(node, 0o755), os.WriteFile(filepath.Join(node, "kubelet.log"), fmt.Appendf(nil, "kubelet %d\n", b.runs), 0o600))
}

func (b *talkative) run(ctx context.Context, slot int, s *scenario.Scenario, o run.Options, wall func() time.Duration) *report.Result {
	logs := logsOf(b.root, b.kind, slot)
	b.runs++
	var err error
	if b.etcd == nil {
		if b.etcd, err = os.Create(filepath.Join(logs, "etcd.log")); err != nil {
			return report.NewResult(s, report.Errored, err)
		}
	}
	_, err = fmt.Fprintf(b.etcd, "run %d\n", b.runs)
	err = errors.Join(err, os.WriteFile(filepath.Join(logs, "builder-1.log"), []byte("begins\nends\n"[:7+b.runs/3*5]), 0o600))
	if b.runs == 2 {
		err = errors.Join(err, os.WriteFile(filepath.Join(logs, "builder-2.log"), []byte("begins\n"), 0o600))
	}
	result := b.simulated.run(ctx, slot, s, o, wall)
	if result.Err = err; err == nil && b.runs == 3 {
		result.Verdict, result.Err = report.Errored, fmt.Errorf("it died; its log is %s/etcd.log", logs)
	}
	return result
}

// pausing is a scenario that takes no time.
func pausing(t *testing.T, name string) *scenario.Scenario {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".yaml")
	text := "kind: Scenario\nname: " + name + "\nshows: a pool can be paused\n" +
		"cluster: {nodes: {master: {count: 1, roles: [master]}, worker: {count: 1}}}\n" +
		"steps:\n  - pause: {pause: worker, expect: {mcp worker: {where: object.spec.paused}}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := scenario.Load([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

// blocking is a cluster on which a file gets into the way of the artifacts.
type blocking struct {
	simulated
	root string
}

func (b blocking) run(ctx context.Context, slot int, s *scenario.Scenario, o run.Options, wall func() time.Duration) *report.Result {
	result := b.simulated.run(ctx, slot, s, o, wall)
	if err := os.WriteFile(filepath.Join(b.root, s.Name), nil, 0o600); err != nil {
		result.Verdict, result.Err = report.Errored, err
	}
	return result
}

// Artifacts that can't be written in the end are an error, of the run and not of the scenario.
func TestArtifactsNotWritten(t *testing.T) {
	var out strings.Builder
	f := &runFlags{artifacts: t.TempDir(), parallel: 1, seed: 1, shown: newProgress(io.Discard)}
	err := f.run(t.Context(), []backend{blocking{root: f.artifacts}}, []*scenario.Scenario{pausing(t, "first")}, &out)
	var broken *brokenError
	if !errors.As(err, &broken) || !strings.HasPrefix(err.Error(), "write artifacts: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q, want one line that tells of artifacts", err)
	}
	if !strings.HasPrefix(out.String(), "passed  first ") {
		t.Errorf("the scenario passed, and the report says:\n%s", &out)
	}
}

// A log holds what was said during the scenario, all of it and nothing else, whoever ran before it in the same place.
func TestLogs(t *testing.T) {
	root := t.TempDir()
	files := map[string]string{
		"_logs-talkative-1/killed-1.log": "what a killed run has left",
		"third/history.jsonl":            "what a run on one cluster has left",
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	list := make([]*scenario.Scenario, 3)
	for i, name := range []string{"first", "second", "third"} {
		list[i] = pausing(t, name)
	}

	f := &runFlags{artifacts: root, parallel: 1, seed: 1, shown: newProgress(io.Discard)}
	backends := []backend{simulated{}, &talkative{kind: "talkative", root: root}}
	if err := os.MkdirAll(logsOf(root, "talkative", 0), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := f.run(t.Context(), backends, list, io.Discard); !errors.Is(err, status(statusBroken)) {
		t.Errorf("ended with %v, want that one scenario could not be run", err)
	}

	want := map[string]string{
		"first/talkative/logs/etcd.log":       "run 1\n",
		"first/talkative/logs/builder-1.log":  "begins\n",
		"second/talkative/logs/etcd.log":      "run 2\n",
		"second/talkative/logs/builder-1.log": "begins\n",
		"second/talkative/logs/builder-2.log": "begins\n",
		"third/talkative/logs/etcd.log":       "run 3\n",
		"third/talkative/logs/builder-1.log":  "begins\nends\n",
	}
	for i, name := range []string{"first", "second", "third"} {
		want[filepath.Join(name, "talkative", "logs", "node", "kubelet.log")] = fmt.Sprintf("kubelet %d\n", i+1)
		for _, cluster := range []string{"sim", "talkative"} {
			for _, file := range []string{"history.jsonl", "registry.txt", "timeline.txt"} {
				want[filepath.Join(name, cluster, file)] = "something"
			}
		}
	}
	got := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			if name := filepath.Base(path); err == nil && name[0] == '_' {
				t.Errorf("%s is left", name)
			}
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		got[name] = string(text)
		if want[name] == "something" && len(text) > 0 {
			got[name] = want[name]
		}
		return err
	})
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	// What an error says of a log is where the log is.
	text, err := os.ReadFile(filepath.Join(root, "third", "talkative", "timeline.txt"))
	if want := "its log is " + filepath.Join(root, "third", "talkative", "logs", "etcd.log"); err != nil || !strings.Contains(string(text), want) {
		t.Errorf("%q isn't in the timeline: %v\n%s", want, err, text)
	}
}
