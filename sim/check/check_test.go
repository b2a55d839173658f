package check_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/layersim/layersim/sim/check"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/scenario"
)

var start = time.Date(2025, 2, 12, 19, 0, 0, 0, time.UTC)

// tape records a history by hand.
type tape struct {
	history.History
	now     time.Duration
	objects map[string]*unstructured.Unstructured
	serial  int
}

func (t *tape) add(r history.Record) {
	r.Seq, r.Time, r.Revision = int64(len(t.Records)+1), t.now, int64(len(t.Records)+1)
	t.Records = append(t.Records, r)
}

func (t *tape) step(events ...string) *tape {
	for _, e := range events {
		t.add(history.Record{Kind: history.KindStep, Step: &history.Step{Event: e}})
	}
	return t
}

func (t *tape) wait(d time.Duration) *tape { t.now += d; return t }

// build writes a MachineOSBuild with a condition that is True; "" removes it.
func (t *tape) build(name, condition string) *tape {
	gvk := schema.GroupVersionKind{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: "MachineOSBuild"}
	if t.objects == nil {
		t.objects = map[string]*unstructured.Unstructured{}
	}
	change := &history.Change{Author: "test", Verb: "update", GVK: gvk, Name: name, Old: t.objects[name]}
	if condition == "" {
		delete(t.objects, name)
	} else {
		uid := ""
		if old := t.objects[name]; old != nil {
			uid = string(old.GetUID())
		} else {
			t.serial++
			uid = fmt.Sprint("uid-", t.serial)
		}
		o := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": gvk.GroupVersion().String(), "kind": gvk.Kind,
			"metadata": map[string]any{"name": name, "uid": uid, "creationTimestamp": start.Format(time.RFC3339)},
			"spec":     map[string]any{"machineOSConfig": map[string]any{"name": name}},
			"status": map[string]any{"conditions": []any{
				map[string]any{"type": condition, "status": "True", "reason": condition, "message": "it is " + condition}}},
		}}
		t.objects[name] = o
		change.New = o
	}
	t.add(history.Record{Kind: history.KindRevision, Change: change})
	return t
}

func (t *tape) boot(node string, layered bool, rpms ...string) *tape {
	t.add(history.Record{Kind: history.KindNode, Node: &history.Node{Node: node, Event: "boot", Layered: layered, RPMs: rpms,
		Image: "quay.io/os@sha256:1", Status: "State: idle\nDeployments:\n* ostree-unverified-registry:quay.io/os@sha256:1\n"}})
	return t
}

func (t *tape) request(method, path string, status int) *tape {
	t.add(history.Record{Kind: history.KindRegistry, Registry: &history.Registry{Method: method, Path: "/v2/" + path, Status: status, Account: "pusher"}})
	return t
}

func (t *tape) log(pod, text string) *tape {
	t.add(history.Record{Kind: history.KindPod, Pod: &history.Pod{Name: pod, Container: "image-build", Log: text}})
	return t
}

// judged returns the failures of a step with the given expectations, over what happened.
func judged(t *testing.T, step string, happened *tape) []check.Failure {
	t.Helper()
	text := `
kind: Scenario
name: s
area: test
shows: something
cluster: two-pools
steps:
  - it happens:
` + step
	list, err := scenario.Parse("../../scenarios/s.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	happened.Header.Start = start
	failures, err := check.History(&happened.History, list[0], cluster.Columns)
	if err != nil {
		t.Fatal(err)
	}
	return failures
}

func TestExpectations(t *testing.T) {
	// In each case the step's expectation is met by the first history and missed by the second, with a message that says why.
	begin := func() *tape { return (&tape{}).step(check.Begin, check.Acted) }
	cases := []struct {
		name, step   string
		good, bad    func() *tape
		check, wants string
	}{
		{
			"expect together", `      expect: [{mosb a: {condition: Succeeded}}, {mosb b: {condition: Succeeded}}]`,
			func() *tape { return begin().build("a", "Succeeded").build("b", "Succeeded").step(check.End) },
			func() *tape {
				return begin().build("a", "Succeeded").build("a", "").build("b", "Succeeded").step(check.Deadline)
			},
			"expect mosb a", "there is no machineosbuild a",
		},
		{
			"a short state is not missed", `      expect: {mosb a: {condition: Building}}`,
			func() *tape { return begin().build("a", "Building").build("a", "Succeeded").step(check.End) },
			func() *tape { return begin().build("a", "Prepared").build("a", "Succeeded").step(check.End) },
			"expect", "condition Building is not set",
		},
		{
			"in order", `      in order: [{mosb a: {condition: Building}}, {mosb a: {condition: Failed}}]`,
			func() *tape { return begin().build("a", "Building").build("a", "Failed").step(check.End) },
			func() *tape {
				return begin().build("a", "Failed").build("a", "").build("a", "Building").step(check.Deadline)
			},
			"in order, number 2", "condition Failed is not set",
		},
		{
			"settles", `      settles: {mosb *: {count: 1}}`,
			func() *tape {
				return begin().build("a", "Failed").build("b", "Failed").build("a", "").step(check.Rest, check.End)
			},
			func() *tape { return begin().build("a", "Failed").build("b", "Failed").step(check.Rest, check.End) },
			"settles", "2 of 2 machineosbuild * meet it, not 1",
		},
		{
			"never came to rest", `      settles: {mosb *: {count: 1}}`,
			func() *tape { return begin().build("a", "Failed").step(check.Rest, check.End) },
			func() *tape { return begin().build("a", "Failed").step(check.Deadline) },
			"settles", "did not come to rest",
		},
		{
			"ever counts UIDs", `      ever: {mosb a: {count: 2}}`,
			func() *tape { return begin().build("a", "Failed").build("a", "").build("a", "Failed").step(check.End) },
			func() *tape { return begin().build("a", "Building").build("a", "Failed").step(check.End) },
			"ever", "1 objects that ever met it, not 2",
		},
		{
			"ever apart", `      ever: {mosb *: {count: 2, apart: [10s]}}`,
			func() *tape {
				return begin().build("a", "Failed").wait(10*time.Second).build("b", "Failed").step(check.End)
			},
			func() *tape {
				return begin().build("a", "Failed").wait(8*time.Second).build("b", "Failed").step(check.End)
			},
			"ever", "came 8s after number 1, not at least 10s",
		},
		{
			"never", `      never: [{it fails: {mosb a: {condition: Failed}}}]
      expect: {mosb b: {}}`,
			func() *tape { return begin().build("a", "Building").build("b", "Building").step(check.End) },
			func() *tape {
				return begin().build("a", "Failed").build("a", "").build("b", "Building").step(check.End)
			},
			"never it fails", "a meets it",
		},
		{
			"always", `      always: [{it builds: {mosb a: {condition: Building}}}]
      expect: {mosb b: {}}`,
			func() *tape { return begin().build("a", "Building").build("b", "Failed").step(check.End) },
			func() *tape { return begin().build("a", "Failed").build("b", "Failed").step(check.End) },
			"always it builds", "condition Building is not set",
		},
		{
			"row", `      expect: {mosb a: {row: "a * True"}}`,
			func() *tape { return begin().build("a", "Building").step(check.End) },
			func() *tape { return begin().build("a", "Prepared").step(check.End) },
			"expect", "BUILDING is , not True",
		},
		{
			"where", `      expect: {mosb a: {where: "object.status.conditions.size() == 1 && object.status.conditions[0].message.contains('Failed')"}}`,
			func() *tape { return begin().build("a", "Failed").step(check.End) },
			func() *tape { return begin().build("a", "Building").step(check.End) },
			"expect", "the expression is false",
		},
		{
			"whole state", `      expect: [true: 'list("mosb").size() == 2']`,
			func() *tape { return begin().build("a", "Failed").build("b", "Failed").step(check.End) },
			func() *tape { return begin().build("a", "Failed").step(check.End) },
			"expect", "the expression is false",
		},
		{
			"matches", `      expect: {mosb a: {matches: {spec: {machineOSConfig: {name: a*}}}}}`,
			func() *tape { return begin().build("a", "Failed").step(check.End) },
			func() *tape { return begin().step(check.End) },
			"expect", "there is no machineosbuild a",
		},
		{
			"all", `      expect: {mosb *: {all: true, condition: Failed}}`,
			func() *tape { return begin().build("a", "Failed").build("b", "Failed").step(check.End) },
			func() *tape { return begin().build("b", "Building").build("a", "Failed").step(check.End) },
			"expect", "b: condition Failed is not set",
		},
		{
			"registry", `      expect: {registry: {method: PUT, path: "os/manifests/*", status: 201, count: 1}}`,
			func() *tape {
				return begin().request("PUT", "os/manifests/x", 401).request("PUT", "os/manifests/x", 201).step(check.End)
			},
			func() *tape { return begin().request("PUT", "os/manifests/x", 401).step(check.End) },
			"expect", "0 requests like it, not 1",
		},
		{
			"requests before the step don't count", `      expect: {registry: {method: PUT}}`,
			func() *tape { return begin().request("PUT", "a", 201).step(check.End) },
			func() *tape { return (&tape{}).request("PUT", "a", 201).step(check.Begin, check.Acted, check.End) },
			"expect", "there are no requests like it",
		},
		{
			"log", `      expect: {log build-*: no space}`,
			func() *tape { return begin().log("build-a", "error: no space left").step(check.End) },
			func() *tape { return begin().log("build-a", "all is well").step(check.End) },
			"expect", "no logs that hold it",
		},
		{
			"machine", `      expect: {machine layered-1: {booted: layered, packages: [tree], rpm-ostree status: ["* ostree-unverified-registry:quay.io/*"]}}`,
			func() *tape { return begin().boot("layered-1", true, "tree-1.0-1.x86_64").step(check.End) },
			func() *tape { return begin().boot("layered-1", true, "tree-sitter-1.0-1.x86_64").step(check.End) },
			"expect", "layered-1 has no package tree",
		},
		{
			"machine without", `      expect: {machine layered-1: {booted: base, without: [tree]}}`,
			func() *tape { return begin().boot("layered-1", false).step(check.End) },
			func() *tape { return begin().boot("layered-1", true).step(check.End) },
			"expect", "layered-1 is booted into",
		},
		{
			"boots", `      expect: {boots: {layered-*: 1}}`,
			func() *tape {
				return (&tape{}).boot("layered-1", false).step(check.Begin, check.Acted).boot("layered-1", true).step(check.End)
			},
			func() *tape { return (&tape{}).boot("layered-1", false).step(check.Begin, check.Acted, check.End) },
			"expect", "layered-1 booted 0 times, not 1",
		},
		{
			"dead end", `      expect: {mosb a: {condition: Succeeded}}`,
			func() *tape { return begin().build("a", "Succeeded").step(check.End) },
			func() *tape { return begin().build("a", "Building").step(check.DeadEnd) },
			"expect", "nothing can happen any more",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if failures := judged(t, c.step, c.good()); len(failures) > 0 {
				t.Errorf("what is as it should be fails: %+v", failures)
			}
			failures := judged(t, c.step, c.bad())
			for _, f := range failures {
				if strings.Contains(f.Check, c.check) && strings.Contains(f.Message, c.wants) {
					if f.Revision == 0 || f.Seq == 0 {
						t.Errorf("%+v doesn't say where", f)
					}
					return
				}
			}
			t.Errorf("no failure of %q says %q: %+v", c.check, c.wants, failures)
		})
	}
}

// A step that does something, but expects only what held before, shows nothing.
func TestStepsMustProveSomething(t *testing.T) {
	step := `      delete: mosb b
      expect: {mosb a: {}}`
	vacuous := (&tape{}).build("a", "Failed").build("b", "Failed").step(check.Begin).build("b", "").step(check.Acted, check.End)
	if failures := judged(t, step, vacuous); len(failures) != 1 || !strings.Contains(failures[0].Message, "shows nothing") {
		t.Errorf("%+v", failures)
	}
	real := (&tape{}).build("b", "Failed").step(check.Begin).build("b", "").step(check.Acted).build("a", "Failed").step(check.End)
	if failures := judged(t, step, real); len(failures) != 0 {
		t.Errorf("%+v", failures)
	}
}

// A step that never began can't have passed.
func TestStepsThatNeverBegan(t *testing.T) {
	failures := judged(t, `      expect: {mosb a: {}}`, &tape{})
	if len(failures) != 1 || !strings.Contains(failures[0].Message, "never performed") {
		t.Errorf("%+v", failures)
	}
}

// A rule whose expression never gives an answer forbids nothing.
func TestRulesMustBeEvaluated(t *testing.T) {
	step := `      never: [{it goes wrong: {mosb a: {where: "object.status.buildStart == object.status.buildEnd"}}}]
      expect: {mosb a: {condition: Failed}}`
	failures := judged(t, step, (&tape{}).step(check.Begin, check.Acted).build("a", "Failed").step(check.End))
	if len(failures) != 1 || !strings.Contains(failures[0].Message, "not be evaluated even once") {
		t.Errorf("%+v", failures)
	}
}

// put writes an object of layering's group, from YAML.
func (t *tape) put(test *testing.T, kind, name, text string) *tape {
	test.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		test.Fatalf("%v\n%s", err, text)
	}
	gvk := schema.GroupVersionKind{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: kind}
	o.SetGroupVersionKind(gvk)
	o.SetName(name)
	t.add(history.Record{Kind: history.KindRevision, Change: &history.Change{Author: "test", Verb: "create", GVK: gvk, Name: name, New: o}})
	return t
}

// What is judged at rest: a MachineOSConfig, its current build and its pool.
func TestRest(t *testing.T) {
	const (
		config    = `{metadata: {annotations: {machineconfiguration.openshift.io/current-machine-os-build: b}}, spec: {machineConfigPool: {name: p}}, status: {%s}}`
		given     = `currentImagePullSpec: i@sha256:1, machineOSBuild: {name: b}`
		build     = `{spec: {machineOSConfig: {name: %s}}, status: {digestedImagePushSpec: "%s", conditions: [{type: %s, status: "True"}]}}`
		pool      = `{status: {conditions: [{type: ImageBuildDegraded, status: "%s", reason: Told}, {type: Updated, status: "%s"}]}}`
		image     = "i@sha256:1"
		succeeded = "Succeeded"
	)
	for _, c := range []struct {
		name                string
		config, build, pool string
		crashed             bool
		want                []string
	}{
		{name: "all agree", config: fmt.Sprintf(config, given), build: fmt.Sprintf(build, "c", image, succeeded), pool: fmt.Sprintf(pool, "False", "True")},
		{name: "a release without these fields", config: fmt.Sprintf(config, `currentImagePullSpec: i@sha256:1`), build: fmt.Sprintf(build, "c", image, succeeded), pool: `{}`},
		{name: "a rebuild failed, and the nodes keep the image", config: fmt.Sprintf(config, `currentImagePullSpec: i@sha256:0, machineOSBuild: {name: a}`),
			build: fmt.Sprintf(build, "c", "", "Failed"), pool: fmt.Sprintf(pool, "True", "True")},
		{name: "no such build", config: fmt.Sprintf(config, given), want: []string{"I7: c has current build b, which isn't there"}},
		{name: "another's build", config: fmt.Sprintf(config, given), build: fmt.Sprintf(build, "other", image, succeeded),
			want: []string{"I7: c has current build b, which is of MachineOSConfig other"}},
		{name: "another build", config: fmt.Sprintf(config, `currentImagePullSpec: i@sha256:1, machineOSBuild: {name: a}`), build: fmt.Sprintf(build, "c", image, succeeded),
			want: []string{"I7: c has current build b, which succeeded, and status.machineOSBuild is a"}},
		{name: "another image", config: fmt.Sprintf(config, given), build: fmt.Sprintf(build, "c", "i@sha256:2", succeeded),
			want: []string{"I7: c has current build b, which made i@sha256:2, and status.currentImagePullSpec is i@sha256:1"}},
		{name: "an old failure", config: fmt.Sprintf(config, given), build: fmt.Sprintf(build, "c", image, succeeded), pool: fmt.Sprintf(pool, "True", "True"),
			want: []string{"I8: pool p has ImageBuildDegraded=True (Told), and build b is Succeeded"}},
		{name: "a failure that isn't told", config: fmt.Sprintf(config, given), build: fmt.Sprintf(build, "c", "", "Failed"), pool: fmt.Sprintf(pool, "False", "False"),
			want: []string{"I8: pool p has ImageBuildDegraded=False (Told), and build b is Failed"}},
		{name: "updated while it builds", config: fmt.Sprintf(config, given), build: fmt.Sprintf(build, "c", "", "Building"), pool: fmt.Sprintf(pool, "False", "True"),
			want: []string{"I8: pool p is Updated, and build b is Building"}},
		{name: "the builder is down", config: fmt.Sprintf(config, given), crashed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := (&tape{}).step(check.Begin, check.Acted).put(t, "MachineOSConfig", "c", c.config)
			if c.build != "" {
				r.put(t, "MachineOSBuild", "b", c.build)
			}
			if c.pool != "" {
				r.put(t, "MachineConfigPool", "p", c.pool)
			}
			r.add(history.Record{Kind: history.KindComponent, Component: &history.Component{Name: "machine-os-builder", Event: "started"}})
			if c.crashed {
				r.add(history.Record{Kind: history.KindComponent, Component: &history.Component{Name: "machine-os-builder", Event: "crashed"}})
			}
			var got []string
			for _, f := range judged(t, "      settles: {mosc c: {}}", r.step(check.Rest, check.End)) {
				_, message, _ := strings.Cut(f.Message, ": ")
				got = append(got, strings.TrimPrefix(f.Check, "invariant ")+": "+message)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A controller that its roles don't allow what it asks for is told from one that admission refuses, and from others.
func TestForbiddenRequests(t *testing.T) {
	const cannot = `secrets is forbidden: User "system:serviceaccount:a:b" cannot list resource "secrets" in API group "" at the cluster scope`
	for name, c := range map[string]struct {
		author, message string
		code            int32
		found           int
	}{
		"authorizer":     {"machine-os-builder", cannot, 403, 1},
		"admission":      {"machine-os-builder", `pods "a" is forbidden: exceeded quota`, 403, 0},
		"somebody else":  {"admin", cannot, 403, 0},
		"another answer": {"machine-os-builder", cannot, 409, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := &tape{}
			r.step(check.Begin).build("a", "Failed")
			r.add(history.Record{Kind: history.KindRequest, Request: &history.Request{Author: c.author, Verb: "list",
				GVK: schema.GroupVersionKind{Version: "v1", Kind: "Secret"}, Code: c.code, Reason: "Forbidden", Message: c.message}})
			r.step(check.Acted, check.End)
			failures := judged(t, "      expect: {mosb a: {condition: Failed}}", r)
			if len(failures) != c.found || c.found == 1 && (failures[0].Check != "invariant I14" || !strings.Contains(failures[0].Message, "machine-os-builder may not list secret")) {
				t.Errorf("%+v", failures)
			}
		})
	}
}
