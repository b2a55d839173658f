//go:build upstream

package release_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/compare"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// recordingsVariable names a folder of recordings of upstream's controllers: RELEASE/NAME.jsonl. They are not part of this
// repository.
const recordingsVariable = "LAYERSIM_RECORDINGS"

// historiesVariable names, where it is set, the histories of runs of testdata/recorded on a real cluster, as given to
// layersim run --history: they are compared with the recordings then, in place of the bundled controllers. Recordings of
// other releases than the controllers' have to be left out by -run.
const historiesVariable = "LAYERSIM_HISTORIES"

// TestRecordings does what was done in recordings of upstream's controllers with the bundled ones, and compares the
// milestones. Scenarios of testdata/recorded name the recordings that they follow; what differs has to be explained in
// testdata/differences.yaml, in the form of package compare.
func TestRecordings(t *testing.T) {
	folder := os.Getenv(recordingsVariable)
	if folder == "" {
		t.Skipf("%s is not set", recordingsVariable)
	}
	text, err := os.ReadFile("testdata/differences.yaml")
	must(t, err)
	explained, err := compare.ParseExplanations(text)
	must(t, err)
	here, err := filepath.Abs("testdata/recorded")
	must(t, err)
	t.Chdir("../../..") // scenarios name files from there
	library, err := scenario.Load([]string{here})
	must(t, err)
	var names []string
	compared := 0
	for _, s := range library {
		for _, name := range s.Source["observed"] {
			names = append(names, name)
			t.Run(name, func(t *testing.T) {
				recorded, err := readRecording(filepath.Join(folder, filepath.FromSlash(name)+".jsonl"))
				if errors.Is(err, fs.ErrNotExist) {
					t.Skip(err)
				}
				must(t, err)
				ours := historyOf(t, s)
				compared++
				recorded.Header.Cluster = path.Dir(name)
				comparable := slices.DeleteFunc(compare.Histories(ours, recorded), beyond)
				for _, d := range explained.Explain(comparable, name, [2]string{ours.Header.Cluster, recorded.Header.Cluster}) {
					t.Error(d)
				}
			})
		}
	}
	if compared == 0 {
		t.Errorf("nothing was compared: no recording of -run's in %s=%s, or no history in %s=%s", recordingsVariable, folder,
			historiesVariable, os.Getenv(historiesVariable))
	}
	if !t.Failed() && os.Getenv(historiesVariable) == "" {
		for _, e := range explained.Stale(names) {
			t.Errorf("%s explains nothing", e)
		}
	}
}

// historyOf runs a scenario with the bundled controllers, or reads the history of another run.
func historyOf(t *testing.T, s *scenario.Scenario) *history.History {
	name := os.Getenv(historiesVariable)
	if name == "" {
		r := run.Scenario(t.Context(), s, run.Options{Seed: 1}, nil)
		if r.Verdict != report.Passed {
			t.Fatalf("the bundled controllers: %s: %v %v", r.Verdict, r.Err, r.Failures)
		}
		return r.History
	}
	f, err := os.Open(strings.TrimSuffix(name, ".jsonl") + "-" + s.Name + ".jsonl")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	}
	must(t, err)
	defer f.Close()
	h, err := history.Read(f)
	must(t, err)
	return h
}

// beyond reports whether a difference is in what recordings don't hold: steps, machines, pushes, and values that
// were never touched.
func beyond(d compare.Difference) bool {
	switch m := d.Milestone; {
	case m.Subject == "scenario", m.Track == "boots", strings.HasPrefix(m.Subject, "registry ") && m.Text == "pushed":
		return true
	case d.Rule != nil:
		return strings.HasPrefix(d.Rule.String(), "the image is pushed ->") || strings.HasPrefix(d.Rule.String(), "the node boots ->")
	default:
		return d.Kind == compare.OnlyA && m.Level && m.Time <= 0 && len(d.B.Track) == 0
	}
}

// readRecording turns a recording into a history, as far as milestones need it. What an object was at the begin is put
// together from the first old values of its fields.
func readRecording(file string) (*history.History, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []*recorded
	for in := bufio.NewReader(f); ; {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			l := &recorded{}
			if err := json.Unmarshal(expand(line), l); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			lines = append(lines, l)
		}
		if err != nil {
			break
		}
	}
	p := &playback{objects: map[object]map[string]any{}, h: &history.History{Header: history.Header{Cluster: "recording", Seed: 1}}}
	p.begin(lines)
	for _, l := range lines {
		p.play(l)
	}
	return p.h, nil
}

// recorded is a line of a recording.
type recorded struct {
	T        float64        `json:"t"`
	Kind     string         `json:"kind"`
	Name     string         `json:"name"`
	Is       string         `json:"is"`
	Set      map[string]any `json:"set"`
	Node     string         `json:"node"`
	Registry string         `json:"registry"`
}

var (
	alias   = regexp.MustCompile(`\b(rendered-[a-z]+|layered|infra|nopool|one|two|ghost|other)-(H\d+)`)
	digest  = regexp.MustCompile(`digest-(\d+)`)
	starts  = regexp.MustCompile(`^node (\S+): .*?(rendered-\S+) -> `)
	deleted = regexp.MustCompile(`^DELETE (\S+) .*"(?:status|code)": (\d+)`)
)

// expand writes out the aliases of hashes and digests.
func expand(line []byte) []byte {
	line = alias.ReplaceAllFunc(line, func(b []byte) []byte {
		m := alias.FindSubmatch(b)
		return fmt.Appendf(nil, "%s-%x", m[1], sha256.Sum256(m[2]))[:len(m[1])+33]
	})
	return digest.ReplaceAllFunc(line, func(b []byte) []byte {
		return fmt.Appendf(nil, "sha256:%x", sha256.Sum256(b))
	})
}

type object struct{ kind, name string }

// playback makes a history out of a recording.
type playback struct {
	h       *history.History
	objects map[object]map[string]any // field by field, as recorded
}

// begin adds what was there when the recording began.
func (p *playback) begin(lines []*recorded) {
	first := map[object]map[string]any{}
	made := map[object]bool{}
	for _, l := range lines {
		if m := starts.FindStringSubmatch(l.Node); m != nil {
			node := object{"Node", m[1]}
			if first[node] == nil && !made[node] {
				first[node] = map[string]any{}
			}
			if _, known := first[node]["annos.currentConfig"]; !known && !made[node] {
				first[node]["annos.currentConfig"], first[node]["annos.desiredConfig"] = m[2], m[2]
			}
		}
		if l.Kind == "" || l.Kind == "Event" {
			continue
		}
		key := object{l.Kind, l.Name}
		if l.Is == "added" {
			made[key] = true
		}
		if made[key] {
			continue
		}
		if first[key] == nil {
			first[key] = map[string]any{}
		}
		for field, value := range l.Set {
			if change, ok := value.([]any); ok && len(change) == 2 {
				if _, known := first[key][field]; !known {
					first[key][field] = change[0]
				}
			}
		}
	}
	// A node that leaves its config alone has the one that its pool had.
	configs := map[string]any{}
	for key, fields := range first {
		said, _ := fields["condition.Updated"].(string)
		if at := strings.Index(said, "rendered-"); key.kind == "MachineConfigPool" && at >= 0 {
			config, _, _ := strings.Cut(said[at:], " ")
			configs[key.name] = config
			for _, field := range []string{"specConfig", "statusConfig"} {
				if fields[field] == nil {
					fields[field] = config
				}
			}
		}
	}
	byName := func(a, b object) int { return strings.Compare(a.kind+a.name, b.kind+b.name) }
	for _, key := range slices.SortedFunc(maps.Keys(first), byName) {
		fields := first[key]
		if key.kind == "Node" {
			if pool, _ := rolesOf(key.name)[0].(string); fields["annos.desiredConfig"] == nil {
				fields["annos.desiredConfig"] = configs[pool]
			}
			if fields["annos.currentConfig"] == nil {
				fields["annos.currentConfig"] = fields["annos.desiredConfig"]
			}
			if fields["roles"] == nil {
				fields["roles"] = rolesOf(key.name)
			}
		}
		if key.kind == "MachineConfigPool" {
			if fields["machineCount"] == nil {
				fields["machineCount"] = fields["readyMachineCount"]
			}
		}
		p.change(0, key, fields, false)
	}
	p.add(history.Record{Step: &history.Step{Event: "begin"}}, 0)
}

// rolesOf tells the roles of a node that was there from the begin by its name: layered-1, or node-l1.
func rolesOf(name string) []any {
	prefix, rest, _ := strings.Cut(name, "-")
	if prefix == "node" {
		prefix = map[byte]string{'l': "layered", 'i': "infra", 'w': "worker"}[rest[0]]
	}
	if prefix == "worker" || prefix == "master" {
		return []any{prefix}
	}
	return []any{prefix, "worker"}
}

func (p *playback) add(r history.Record, t float64) {
	r.Seq, r.Revision = int64(len(p.h.Records)+1), int64(len(p.h.Records)+1)
	r.Time = time.Duration(t * float64(time.Second))
	switch {
	case r.Step != nil:
		r.Kind = history.KindStep
	case r.Change != nil:
		r.Kind = history.KindRevision
	default:
		r.Kind = history.KindRegistry
	}
	p.h.Records = append(p.h.Records, r)
}

func (p *playback) play(l *recorded) {
	if m := deleted.FindStringSubmatch(l.Registry); m != nil {
		code, _ := strconv.Atoi(m[2])
		p.add(history.Record{Registry: &history.Registry{Method: "DELETE", Path: m[1], Status: code}}, l.T)
	}
	if l.Kind == "" || l.Kind == "Event" {
		return
	}
	fields := map[string]any{}
	for field, value := range l.Set {
		if change, ok := value.([]any); ok && len(change) == 2 && l.Is == "modified" {
			value = change[1]
		}
		fields[field] = value
	}
	p.change(l.T, object{l.Kind, l.Name}, fields, l.Is == "deleted")
}

func (p *playback) change(t float64, key object, fields map[string]any, gone bool) {
	was := p.objects[key]
	c := &history.Change{Author: "recorded", GVK: schema.GroupVersionKind{Kind: key.kind}, Name: key.name}
	if slices.Contains([]string{"Job", "Pod", "ConfigMap", "Secret"}, key.kind) {
		c.Namespace = layering.Namespace
	}
	if was != nil {
		c.Old = build(key, was)
	}
	if gone {
		delete(p.objects, key)
		if was == nil {
			return
		}
	} else {
		for field := range fields {
			if n, _ := was["gen"].(float64); key.kind == "MachineOSConfig" && strings.HasPrefix(field, "spec.") && fields["gen"] == nil {
				fields = maps.Clone(fields)
				fields["gen"] = n + 1
				break
			}
		}
		is := maps.Clone(was)
		if is == nil {
			is = map[string]any{}
		}
		maps.Copy(is, fields)
		p.objects[key] = is
		c.New = build(key, is)
	}
	p.add(history.Record{Change: c}, t)
}

// build makes an object of the fields of a recording.
func build(key object, fields map[string]any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"kind": key.kind, "metadata": map[string]any{"name": key.name}}}
	if job, _, ok := strings.Cut(key.name, "-pod"); ok && key.kind == "Pod" {
		o.SetLabels(map[string]string{"batch.kubernetes.io/job-name": job})
	}
	set := func(value any, path ...string) {
		_ = unstructured.SetNestedField(o.Object, value, path...) // all values are JSON's
	}
	var conditions []any
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		value := fields[field]
		kind, rest, _ := strings.Cut(field, ".")
		name := rest
		if !strings.Contains(name, "/") {
			name = "machineconfiguration.openshift.io/" + name
		}
		switch {
		case value == nil:
		case kind == "annos":
			set(value, "metadata", "annotations", name)
		case kind == "labels":
			set(value, "metadata", "labels", name)
		case kind == "condition":
			holds, _, _ := strings.Cut(value.(string), " ") // "True reason=Ready msg=Build Ready", or
			holds, _, _ = strings.Cut(holds, "|")           // "True|Ready|Build Ready"
			conditions = append(conditions, map[string]any{"type": rest, "status": holds})
		case kind == "spec":
			set(value, append([]string{"spec"}, strings.Split(rest, ".")...)...)
		case kind == "status", kind == "counts" && rest != "":
			if n, ok := value.(float64); ok {
				value = int64(n)
			}
			set(value, "status", rest)
		case field == "counts":
			for word := range strings.FieldsSeq(value.(string)) {
				name, number, _ := strings.Cut(word, "=")
				n, _ := strconv.ParseInt(number, 10, 64)
				set(n, "status", strings.Replace(name+"MachineCount", "machineMachine", "machine", 1))
			}
		case field == "gen":
			set(int64(value.(float64)), "metadata", "generation")
		case field == "deleting":
			set("2026-01-01T00:00:00Z", "metadata", "deletionTimestamp")
		case field == "paused":
			set(value, "spec", "paused")
		case field == "unschedulable":
			set(value, "spec", "unschedulable")
		case field == "specConfig":
			set(value, "spec", "configuration", "name")
		case field == "statusConfig":
			set(value, "status", "configuration", "name")
		case field == "digest" && key.kind == "MachineOSBuild":
			set(value, "status", "digestedImagePushSpec")
		case field == "digest":
			set(value, "data", "digest")
		case field == "roles":
			for _, role := range value.([]any) {
				set("", "metadata", "labels", layering.NodeRolePrefix+role.(string))
			}
		case slices.Contains([]string{"phase", "digestedImagePushSpec", "currentImagePullSpec"}, field):
			set(value, "status", field)
		default:
			if n, ok := value.(float64); ok {
				set(int64(n), "status", field)
			}
		}
	}
	if conditions != nil {
		set(conditions, "status", "conditions")
	}
	return o
}
