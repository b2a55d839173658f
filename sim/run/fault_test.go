package run_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/layersim/layersim/sim/report"
	"github.com/layersim/layersim/sim/run"
	"github.com/layersim/layersim/sim/scenario"
)

// underFault is the rollout of an image with something that goes wrong on the way, and its repair.
func underFault(t *testing.T, break_, repair string) *scenario.Scenario {
	t.Helper()
	text := strings.Replace(header, "name: base", "name: under-fault", 1) + `
cluster: {like: two-pools, builders: 2, controllers: 2, nodes: {layered: {count: 3}}, workloads: {web: {replicas: 4, minAvailable: 3}}}
steps:
  - something goes wrong:
      ` + break_ + `
  - an image is asked for:
      apply: fixtures/layered.yaml
      expect: {machineosconfig layered: {}}
      for: 1h
` + repair + `
  - it rolls out all the same:
      within: 12h
      settles:
        - machineosbuild layered-*: {condition: Succeeded}
        - machineconfigpool layered: {condition: Updated, updated: 3, ready: 3}
        - machine layered-*: {booted: layered, packages: [tree]}
        - nodes *: {count: 0, where: "has(object.spec.unschedulable) && object.spec.unschedulable"}
`
	list, err := scenario.Parse("../../scenarios/under-fault.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return list[0]
}

const heal = "  - it is repaired: {heal: broken}\n"

// Each kind of fault fires, and the controllers get over it. What a fault leaves behind must not need a hand: but for a
// build that failed for good, which is asked for again.
func TestFaultsFireAndHeal(t *testing.T) {
	rebuild := heal[:len(heal)-2] + `, annotate: {machineosconfig layered: {machineconfiguration.openshift.io/rebuild: ""}}}` + "\n"
	faults := []struct{ name, fault, repair string }{
		{"api error", "{on: api, do: error, verb: create, kind: Job, times: 3}", ""},
		{"api conflict", "{on: api, do: conflict, caller: node-controller, verb: patch, times: 5}", ""},
		{"api timeout", "{on: api, do: timeout, caller: machine-config-daemon, times: 20}", ""},
		{"api lost response", "{on: api, do: lost-response, verb: create, kind: MachineOSBuild, times: 1}", ""},
		{"api lost response of the digest", "{on: api, do: lost-response, verb: create, kind: ConfigMap, times: 4}", ""},
		{"api delay", "{on: api, do: delay, caller: machine-os-builder, kind: Job, duration: 5m, times: 3}", ""},
		{"api delay of nodes", "{on: api, do: delay, caller: node-controller, kind: Node, duration: 10m, times: 10}", ""},
		{"registry unauthorized", "{on: registry, do: unauthorized, caller: node/layered-1, times: 2}", ""},
		{"registry forbidden", "{on: registry, do: forbidden, caller: node/layered-2, times: 2}", ""},
		{"registry not-found", "{on: registry, do: not-found, caller: node/*, method: GET, path: '*manifests*', times: 2}", ""},
		{"registry error", "{on: registry, do: error, caller: build-pod/*, method: PUT, times: 1}", ""},
		{"registry unreachable", "{name: broken, on: registry, do: unreachable, caller: node/*}", heal},
		{"registry quota", "{name: broken, on: registry, do: quota, method: PUT}", rebuild},
		{"repository unreachable", "{name: broken, on: repository, do: unreachable}", rebuild},
		{"repository missing package", "{on: repository, do: missing-package, package: tree, times: 2}", ""},
		{"build fail", "{on: build, do: fail, phase: push, times: 2}", ""},
		{"build kill", "{on: build, do: kill, phase: build, times: 3}", ""},
		{"build hang", "{name: broken, on: build, do: hang, phase: build, times: 1}", "  - kill it: {delete: pods build-layered-*}\n"},
		{"node fail at stage", "{on: node, do: fail, node: layered-1, phase: stage, times: 2}", ""},
		{"node fail at done", "{on: node, do: fail, phase: done, times: 2}", ""},
		{"node hang at drain", "{name: broken, on: node, do: hang, node: layered-2, phase: drain}", heal},
		{"node hang at boot", "{name: broken, on: node, do: hang, node: layered-*, phase: boot}", heal},
		{"registry unreachable for a time", "{on: registry, do: unreachable, caller: node/*, duration: 2h}", ""},
		{"node power off for a time", "{on: node, do: power-off, node: layered-1, duration: 3h}", ""},
		{"node power off", "{name: broken, on: node, do: power-off, node: layered-1}", heal},
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			pass(t, underFault(t, "fault: "+f.fault, f.repair), 1)
		})
	}
}

func pass(t *testing.T, s *scenario.Scenario, seed uint64) {
	t.Helper()
	r := run.Scenario(t.Context(), s, run.Options{Seed: seed}, nil)
	if r.Verdict == report.Passed {
		return
	}
	t.Errorf("%s: %v", r.Verdict, r.Err)
	for _, f := range r.Failures {
		t.Errorf("%s: %s (at %.1f s, revision %d)", f.Check, f.Message, f.VirtualSeconds, f.Revision)
	}
}

// A fault that nothing meets fails the scenario, whatever else passed.
func TestUnfiredFaultFails(t *testing.T) {
	r := run.Scenario(t.Context(), underFault(t, "fault: {name: nothing, on: api, do: error, caller: nobody}", ""), run.Options{Seed: 1}, nil)
	if r.Verdict != report.Failed || len(r.Failures) != 1 || r.Failures[0].Check != "fault nothing" {
		t.Errorf("%s: %+v", r.Verdict, r.Failures)
	}
}

// A cluster that can't do what a scenario needs skips it, and says why: a skip never looks like a pass.
func TestMissingCapabilitySkips(t *testing.T) {
	s := base(t, rollOut)
	s.Needs = []string{"virtual-time", "real-kubelet"}
	r := run.Scenario(t.Context(), s, run.Options{Seed: 1}, nil)
	if r.Verdict != report.Skipped || r.Err == nil || !strings.Contains(r.Err.Error(), "real-kubelet") {
		t.Errorf("%s: %v", r.Verdict, r.Err)
	}
}

// Each process is crashed before and after its n-th write; then the image rolls out all the same. LAYERSIM_CRASHES sets up
// to which write each one is tried, the default being a sample.
func TestCrashAnywhere(t *testing.T) {
	writes := []int{1, 2, 3, 5, 8, 13, 21}
	if n, err := strconv.Atoi(os.Getenv("LAYERSIM_CRASHES")); err == nil {
		writes = nil
		for w := range n {
			writes = append(writes, w+1)
		}
	}
	processes := map[string]int{ // how many writes each makes at least in this scenario
		"machine-os-builder": 21, "machine-config-controller": 21, "node-agents": 60, "build-pods": 3, "kube": 20,
	}
	for process, most := range processes {
		for _, w := range writes {
			if w > most {
				continue
			}
			for _, when := range []string{"before", "after"} {
				t.Run(fmt.Sprintf("%s %s write %d", process, when, w), func(t *testing.T) {
					t.Parallel()
					pass(t, underFault(t, fmt.Sprintf("crash: {component: %s, when: %s, write: %d}", process, when, w), ""), uint64(w))
				})
			}
		}
	}
}
