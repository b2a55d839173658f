package scenario

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// TestLibrary reads the whole library, which must have no mistakes.
func TestLibrary(t *testing.T) {
	all, err := Load([]string{"../../scenarios"})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Errorf("only %d scenarios", len(all))
	}
	for _, s := range all {
		if s.Area == "" || len(s.Source) == 0 {
			t.Errorf("%s: no area or no source", s.Pos)
		}
	}
}

// TestTopologies reads each of the topologies by its name.
func TestTopologies(t *testing.T) {
	files, err := filepath.Glob("../../fixtures/clusters/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		name = name[:len(name)-len(".yaml")]
		text := "kind: Scenario\nname: x\nshows: x\ncluster: " + name + "\nsteps: [x: {wait: 1s}]\n"
		got, err := Parse("x.yaml", []byte(text))
		if err != nil {
			t.Error(err)
			continue
		}
		c := got[0].Cluster
		if c.Name != name || len(c.Nodes) < 3 || len(c.Secrets) != 4 || len(c.Accounts) != 3 {
			t.Errorf("%s: %+v", file, c)
		}
	}
}

func parseOne(t *testing.T, text string) *Scenario {
	t.Helper()
	all, err := Parse("testdata/x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Fatalf("got %d scenarios", len(all))
	}
	return all[0]
}

// ignorePlaces compares what a file says, not where.
var ignorePlaces = cmp.Options{cmpopts.IgnoreTypes(Position{}), cmpopts.EquateEmpty()}

func TestParse(t *testing.T) {
	s := parseOne(t, `
kind: Scenario
name: everything
area: test
shows: what becomes of each form
source: {seed: text, upstream: [A, B]}
needs: registry
seed: 9
cluster:
  like: two-pools
  pools: {layered: {maxUnavailable: 50%}, infra: {paused: true}}
  nodes: {worker: null, layered: {count: 1, zone: a}, lone: {}}
  machineSets: {extra: {replicas: 2, roles: [worker, infra]}}
  accounts: {base: null, puller: {push: [a/*]}}
  secrets: {openshift-config/pull-secret: null, global-pull-secret-copy: null, machine-os-puller: ""}
  workloads: {web: {replicas: 2, minAvailable: 1, nodeSelector: {a: b}}}
  objects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: note}}]
  builders: 2
steps:
  - actions:
      patch: {"mcp layered": {spec: {paused: true}}, pod default/web-*: {metadata: {labels: {a: null}}}}
      label: {nodes layered-*: {role: x, other: null}}
      pause: [layered, infra]
      uncordon: layered-*
      delete: [secret openshift-config/x, mosc layered]
      scale: {machineset extra: 3}
      rotate: [pusher, puller]
      secret: {builder-dockercfg-7lzwl: "", openshift-config/x: {account: puller, host: quay.io}}
      fault: [{on: repository, do: unreachable, times: 3}, {name: a, on: node, do: fail, node: lone, phase: pull, duration: 1m}]
      heal: [repository, a]
      restart: kube
      crash: {component: machine-os-builder, when: before, write: 2, verb: create, kind: jobs}
      write: {lone: {/etc/motd: hello, /etc/x: null}}
      image: {delete: "build:layered-*", quota: {a/b: 1Ki, c: null}}
      wait: 1h30m
  - expectations:
      within: 90s
      expect:
        - mosb layered-*: {condition: [Failed, Building=False, {type: Succeeded, status: true, reason: R*}], count: 2}
        - pods web-*: {exists: false, phase: Running}
        - mcp layered: {updated: 2, matches: {status: {machineCount: 3}}, row: "layered * True"}
        - mcp infra: {columns: {UPDATED: true, READYMACHINECOUNT: 0}, all: true}
        - pod default/x:
      in order: {registry: {method: GET, path: v2/*, status: 401}}
      settles: [machine lone: {booted: base, packages: tree, count: 0}]
      ever: [{pods build-*: {count: 2, apart: 10s}}, log build-*: text, boots: {lone: 1}]
      never: [a: {node *: {where: "oldObject != null && object.spec.unschedulable"}}]
      always: [b: {true: 'list("node").size() > 0'}]
      for: 5m
`)
	two, zero := 2, 0
	hello := "hello"
	object := func(kind, ns, name string) Ref { return Ref{Kind: kind, Namespace: ns, Name: name} }
	const mco = "openshift-machine-config-operator"
	want := &Scenario{
		Name: "everything", Area: "test", Shows: "what becomes of each form", Needs: []string{"registry"}, Seed: 9,
		Source: map[string][]string{"seed": {"text"}, "upstream": {"A", "B"}},
		Cluster: Topology{
			Name: "two-pools", Builders: 2, Controllers: 1,
			Pools: []Pool{{Name: "master"}, {Name: "worker"}, {Name: "layered", MaxUnavailable: "50%"}, {Name: "infra", Paused: true}},
			Nodes: []Node{
				{Name: "master-1", Count: 1, Roles: []string{"master", "control-plane"}}, {Name: "master-2", Count: 1, Roles: []string{"master", "control-plane"}},
				{Name: "master-3", Count: 1, Roles: []string{"master", "control-plane"}},
				{Name: "layered-1", Count: 1, Roles: []string{"worker", "layered"}, Zone: "a"}, {Name: "lone", Count: 1, Roles: []string{"worker"}},
			},
			MachineSets: []MachineSet{{Name: "extra", Replicas: 2, Roles: []string{"worker", "infra"}}},
			Accounts: []Account{
				{Name: "pusher", Pull: []string{mco + "/os-images", "openshift/os-image"}, Push: []string{mco + "/os-images", "openshift/os-image"}},
				{Name: "puller", Pull: []string{mco + "/os-images", "openshift/os-image"}, Push: []string{"a/*"}},
			},
			Secrets:   []SecretFrom{{Namespace: mco, Name: "builder-dockercfg-7lzwl", Account: "pusher"}, {Namespace: mco, Name: "machine-os-puller"}},
			Workloads: []Workload{{Name: "web", Replicas: 2, MinAvailable: "1", NodeSelector: map[string]string{"a": "b"}}},
		},
		Steps: []Step{
			{Name: "actions", Within: DefaultWithin, Actions: []Action{
				{Verb: "patch", Targets: []Target{
					{Ref: object("MachineConfigPool", "", "layered"), Patch: map[string]any{"spec": map[string]any{"paused": true}}},
					{Ref: object("Pod", "default", "web-*"), Patch: map[string]any{"metadata": map[string]any{"labels": map[string]any{"a": nil}}}},
				}},
				{Verb: "label", Targets: []Target{
					{Ref: object("Node", "", "layered-*"), Patch: map[string]any{"metadata": map[string]any{"labels": map[string]any{"role": "x", "other": nil}}}},
				}},
				{Verb: "pause", Targets: []Target{
					{Ref: object("MachineConfigPool", "", "layered"), Patch: map[string]any{"spec": map[string]any{"paused": true}}},
					{Ref: object("MachineConfigPool", "", "infra"), Patch: map[string]any{"spec": map[string]any{"paused": true}}},
				}},
				{Verb: "uncordon", Targets: []Target{{Ref: object("Node", "", "layered-*"), Patch: map[string]any{"spec": map[string]any{"unschedulable": nil}}}}},
				{Verb: "delete", Targets: []Target{{Ref: object("Secret", "openshift-config", "x")}, {Ref: object("MachineOSConfig", "", "layered")}}},
				{Verb: "scale", Targets: []Target{
					{Ref: object("MachineSet", "openshift-machine-api", "extra"), Patch: map[string]any{"spec": map[string]any{"replicas": int64(3)}}},
				}},
				{Verb: "rotate", Account: "pusher"}, {Verb: "rotate", Account: "puller"},
				{Verb: "secret", Secrets: []SecretFrom{
					{Namespace: mco, Name: "builder-dockercfg-7lzwl"}, {Namespace: "openshift-config", Name: "x", Account: "puller", Host: "quay.io"},
				}},
				{Verb: "fault", Fault: &Fault{Name: "repository-unreachable", On: "repository", Do: "unreachable", Times: 3}},
				{Verb: "fault", Fault: &Fault{Name: "a", On: "node", Do: "fail", Object: "lone", Phase: "pull", Duration: time.Minute}},
				{Verb: "heal", Names: []string{"repository", "a"}},
				{Verb: "restart", Names: []string{"kube"}},
				{Verb: "crash", Crash: &Crash{Component: "machine-os-builder", When: "before", Write: 2, Verb: "create", Kind: "Job"}},
				{Verb: "write", Files: []NodeFile{{Node: "lone", Path: "/etc/motd", Content: &hello}, {Node: "lone", Path: "/etc/x"}}},
				{Verb: "image", Registry: &RegistryAction{Delete: "build:layered-*"}},
				{Verb: "image", Registry: &RegistryAction{Quota: "a/b", Bytes: 1024}}, {Verb: "image", Registry: &RegistryAction{Quota: "c"}},
				{Verb: "wait", Duration: 90 * time.Minute},
			}},
			{
				Name: "expectations", Within: 90 * time.Second, For: 5 * time.Minute,
				Expect: []Expectation{
					{Object: &ObjectExpectation{Ref: object("MachineOSBuild", "", "layered-*"), Count: &two, Conditions: []Condition{
						{Type: "Failed", Status: "True"}, {Type: "Building", Status: "False"}, {Type: "Succeeded", Status: "True", Reason: "R*"},
					}}},
					{Object: &ObjectExpectation{Ref: object("Pod", mco, "web-*"), Count: &zero, Phase: "Running"}},
					{Object: &ObjectExpectation{Ref: object("MachineConfigPool", "", "layered"), Row: []string{"layered", "*", "True"},
						Matches: map[string]any{"status": map[string]any{"machineCount": int64(3), "updatedMachineCount": int64(2)}}}},
					{Object: &ObjectExpectation{Ref: object("MachineConfigPool", "", "infra"), All: true,
						Columns: map[string]string{"UPDATED": "True", "READYMACHINECOUNT": "0"}}},
					{Object: &ObjectExpectation{Ref: object("Pod", "default", "x")}},
				},
				InOrder: []Expectation{{Registry: &RegistryExpectation{Method: "GET", Path: "v2/*", Status: 401}}},
				Settles: []Expectation{{Node: &NodeExpectation{Name: "lone", Booted: "base", Packages: []string{"tree"}, Count: &zero}}},
				Ever: []Expectation{
					{Object: &ObjectExpectation{Ref: object("Pod", mco, "build-*"), Count: &two, Apart: []time.Duration{10 * time.Second}}},
					{Log: &LogExpectation{Pod: "build-*", Text: "text"}},
					{Boots: &BootsExpectation{Boots: map[string]int{"lone": 1}}},
				},
				Never: []Rule{{Name: "a", Expectation: Expectation{Object: &ObjectExpectation{Ref: object("Node", "", "*"),
					Where: "oldObject != null && object.spec.unschedulable"}}}},
				Always: []Rule{{Name: "b", Expectation: Expectation{CEL: `list("node").size() > 0`}}},
			},
		},
	}
	opts := append(ignorePlaces, cmpopts.IgnoreFields(Expectation{}, "Text"), cmpopts.IgnoreFields(Topology{}, "Objects"))
	if diff := cmp.Diff(want, s, opts...); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := s.Cluster.Objects[0].GetNamespace(); got != mco {
		t.Errorf("the object's namespace is %q", got)
	}
	if got, want := s.Steps[1].Expect[0].Pos.String(), "testdata/x.yaml:39:11"; got != want {
		t.Errorf("the first expectation is at %s, not %s", got, want)
	}
	if got, want := s.Steps[1].Ever[0].Text, "pods build-*: {count: 2, apart: 10s}"; got != want {
		t.Errorf("its text is %q, not %q", got, want)
	}
}

func TestVariants(t *testing.T) {
	all, err := Parse("testdata/x.yaml", []byte(`
kind: Scenario
name: x
shows: $(what) at $(n)
cluster: two-pools
variants:
  a: {n: 1, what: mcp, paused: true}
  b: {n: 2, what: pool, paused: false}
steps:
  - step $(n):
      annotate: {"$(what) layered": {a: "$$(n) $(n) $(not one) $("}}
      patch: {$(what) layered: {spec: {paused: $(paused)}}}
      fault: {on: repository, do: unreachable, times: $(n)}
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Fatalf("got %d scenarios", len(all))
	}
	b := all[1]
	if b.Name != "x/b" || b.Shows != "pool at 2" || b.Steps[0].Name != "step 2" {
		t.Errorf("got %q, %q, %q", b.Name, b.Shows, b.Steps[0].Name)
	}
	got := []any{b.Steps[0].Actions[0].Targets[0].Patch, b.Steps[0].Actions[1].Targets[0].Patch, b.Steps[0].Actions[2].Fault.Times}
	want := []any{
		map[string]any{"metadata": map[string]any{"annotations": map[string]any{"a": "$(n) 2 $(not one) $("}}},
		map[string]any{"spec": map[string]any{"paused": false}}, 2,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestFilesAreFound: paths are looked up from the scenario's folder upwards, and topologies also among those of the binary.
func TestFilesAreFound(t *testing.T) {
	dir := t.TempDir()
	write := func(file, text string) {
		t.Helper()
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("fixtures/note.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: outer}}")
	write("deep/fixtures/note.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: inner}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: second}}")
	write("fixtures/clusters/own.yaml", "kind: Cluster\nname: own\nnodes: {master: {count: 1, roles: [master]}}\n")
	text := "kind: Scenario\nname: NAME\nshows: x\ncluster: CLUSTER\nsteps: [x: {apply: fixtures/note.yaml}]\n"
	write("a.yaml", replace(text, "NAME", "a", "CLUSTER", "own"))
	write("deep/b.yaml", replace(text, "NAME", "b", "CLUSTER", "scale"))
	all, err := Load([]string{dir + "/a.yaml", dir + "/deep"})
	if err != nil || len(all) != 2 {
		t.Fatalf("got %d scenarios and %v", len(all), err)
	}
	// A manifest is passed over in a folder, but it is a mistake to ask for it.
	if _, err := Load([]string{dir + "/deep/fixtures/note.yaml"}); err == nil {
		t.Error("a manifest was taken for a scenario")
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Cluster.Name)
		for _, o := range s.Steps[0].Actions[0].Objects {
			names = append(names, o.GetName())
		}
	}
	if diff := cmp.Diff([]string{"own", "outer", "scale", "inner", "second"}, names); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func replace(text string, pairs ...string) string { return strings.NewReplacer(pairs...).Replace(text) }

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		glob, text string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "a/b", true}, {"a*", "abc", true}, {"*c", "abc", true}, {"a*c", "abc", true},
		{"a*b*c", "a-b-b-c", true}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"layered-*", "layered", false}, {"a*a", "a", false},
		{"**", "x", true}, {"*ab", "aab", true}, {"a", "ab", false}, {"ab", "a", false},
	} {
		if got := Match(test.glob, test.text); got != test.want {
			t.Errorf("Match(%q, %q) = %v", test.glob, test.text, got)
		}
	}
}

// TestMatchFindsItself: a text matches a glob that was made from it by putting * and ? for parts of it.
func TestMatchFindsItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ab/-]{0,12}`).Draw(t, "text")
		glob := ""
		for i := 0; i < len(text); {
			switch rapid.IntRange(0, 3).Draw(t, "put") {
			case 0:
				glob += "?"
				i++
			case 1:
				glob += "*"
				i += rapid.IntRange(0, len(text)-i).Draw(t, "taken")
			default:
				glob += text[i : i+1]
				i++
			}
		}
		if !Match(glob, text) {
			t.Errorf("Match(%q, %q) is false", glob, text)
		}
	})
}

// FuzzParse: no file makes the reader panic, and each mistake has a place.
func FuzzParse(f *testing.F) {
	for _, w := range words {
		f.Add([]byte(document(w)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := Parse("x.yaml", data)
		var mistakes Errors
		if err != nil && !errors.As(err, &mistakes) {
			t.Fatal(err)
		}
		for _, m := range mistakes {
			if m.File == "" || m.Rule == "" {
				t.Errorf("%+v", m)
			}
		}
	})
}

func TestKinds(t *testing.T) {
	seen := map[string]string{}
	for _, k := range Kinds() {
		for _, alias := range append([]string{k.Kind}, k.Aliases...) {
			if other, twice := seen[alias]; twice {
				t.Errorf("%s means %s and %s", alias, other, k.Kind)
			}
			seen[alias] = k.Kind
			gvk, namespaced, ok := KindOf(alias)
			if !ok || gvk != k.GroupVersionKind || namespaced != k.Namespaced || gvk.Empty() {
				t.Errorf("KindOf(%q) = %v, %v, %v", alias, gvk, namespaced, ok)
			}
		}
	}
	for _, alias := range []string{"MOSC", "mosb", "Mcp", "mc", "cm", "nodes", "PODS", "pdb"} {
		if _, _, ok := KindOf(alias); !ok {
			t.Errorf("%s is not known", alias)
		}
	}
	if _, _, ok := KindOf("widget"); ok {
		t.Error("widget is known")
	}
}
