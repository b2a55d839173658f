package report

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/scenario"
)

// tape makes a history by hand. Objects are changed by YAML merge patches, in which conditions are merged by type.
type tape struct {
	t        *testing.T
	now      time.Duration
	revision int64
	rec      *history.Recorder
	objects  map[string]*unstructured.Unstructured
	step     int
	name     string
}

func newTape(t *testing.T, name string) *tape {
	p := &tape{t: t, objects: map[string]*unstructured.Unstructured{}, now: 40 * time.Second, revision: 210, step: -1}
	p.rec = &history.Recorder{
		History: &history.History{Header: history.Header{Scenario: name, Cluster: "sim", Seed: 7,
			Start: time.Date(2025, 2, 10, 12, 0, 0, 0, time.UTC)}},
		Now: func() time.Duration { return p.now }, Revision: func() int64 { return p.revision },
	}
	return p
}

// after moves the clock.
func (p *tape) after(d string) *tape {
	more, err := time.ParseDuration(d)
	if err != nil {
		p.t.Fatal(err)
	}
	p.now += more
	return p
}

func (p *tape) seq() int64 { return int64(len(p.rec.History.Records)) }

func (p *tape) begin(name string) {
	p.step++
	p.name = name
	p.mark("begin", "")
}

func (p *tape) mark(event, message string) {
	p.rec.Add(history.Record{Step: &history.Step{Index: p.step, Name: p.name, Event: event, Message: message}})
}

var groups = map[string]schema.GroupVersion{
	"MachineOSConfig": {Group: "machineconfiguration.openshift.io", Version: "v1"}, "MachineOSBuild": {Group: "machineconfiguration.openshift.io", Version: "v1"},
	"MachineConfigPool": {Group: "machineconfiguration.openshift.io", Version: "v1"}, "Job": {Group: "batch", Version: "v1"},
}

// put creates or changes an object.
func (p *tape) put(author, kind, name, patch string, args ...any) {
	p.t.Helper()
	var change map[string]any
	if err := yaml.Unmarshal([]byte(fmt.Sprintf(patch, args...)), &change); err != nil {
		p.t.Fatalf("%s %s: %v", kind, name, err)
	}
	gv, ok := groups[kind]
	if !ok {
		gv.Version = "v1"
	}
	old := p.objects[kind+"/"+name]
	verb := "patch"
	now := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": name}}}
	if old == nil {
		verb = "create"
	} else {
		now.Object = runtime.DeepCopyJSON(old.Object)
	}
	merge(now.Object, change)
	now.SetGroupVersionKind(gv.WithKind(kind))
	p.objects[kind+"/"+name] = now
	p.revision++
	p.rec.Add(history.Record{Change: &history.Change{Author: author, Verb: verb, GVK: gv.WithKind(kind), Name: name, Old: old, New: now}})
}

func (p *tape) remove(author, kind, name string) {
	gv := groups[kind]
	p.revision++
	p.rec.Add(history.Record{Change: &history.Change{Author: author, Verb: "delete", GVK: gv.WithKind(kind), Name: name,
		Old: p.objects[kind+"/"+name]}})
	delete(p.objects, kind+"/"+name)
}

func merge(into, from map[string]any) {
	for k, v := range from {
		switch v := v.(type) {
		case nil:
			delete(into, k)
		case map[string]any:
			m, ok := into[k].(map[string]any)
			if !ok {
				m = map[string]any{}
				into[k] = m
			}
			merge(m, v)
		case []any:
			if k != "conditions" {
				into[k] = v
				continue
			}
			old, _ := into[k].([]any)
			for _, c := range v {
				found := false
				for n := range old {
					if old[n].(map[string]any)["type"] == c.(map[string]any)["type"] {
						old[n], found = c, true
					}
				}
				if !found {
					old = append(old, c)
				}
			}
			into[k] = old
		default:
			into[k] = v
		}
	}
}

const (
	oneHash, twoHash = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	oneDigest        = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	twoDigest        = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	pushSpec         = "image-registry.openshift-image-registry.svc:5000/openshift/os-image"
	rendered         = "rendered-layered-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	mc               = "machineconfiguration.openshift.io/"
)

// cluster puts the objects that are there before the first step.
func (p *tape) cluster(nodes int) {
	p.put("admin", "MachineConfigPool", "layered", `{spec: {paused: false, configuration: {name: %s}}, status: {machineCount: %d, updatedMachineCount: %d,
		readyMachineCount: %d, conditions: [{type: Updated, status: "True"}, {type: Updating, status: "False"}, {type: Degraded, status: "False"}]}}`,
		rendered, nodes, nodes, nodes)
	for n := range nodes {
		p.put("kubelet", "Node", fmt.Sprintf("layered-%d", n+1), `{metadata: {labels: {node-role.kubernetes.io/worker: "", node-role.kubernetes.io/layered: ""},
			annotations: {%[1]scurrentConfig: %[2]s, %[1]sdesiredConfig: %[2]s, %[1]sstate: Done}}, spec: {},
			status: {conditions: [{type: Ready, status: "True"}]}}`, mc, rendered)
	}
	p.put("kubelet", "Node", "worker-1", `{metadata: {labels: {node-role.kubernetes.io/worker: ""}, annotations: {%[1]sstate: Done}}, spec: {},
		status: {conditions: [{type: Ready, status: "True"}]}}`, mc)
}

// build plays a build whose pods fail the given number of times.
func (p *tape) build(hash, digest string, failures int) {
	name, job := "layered-"+hash, "build-layered-"+hash
	p.after("5s").put("machine-os-builder", "MachineOSBuild", name, `{spec: {machineConfig: {name: %s}}}`, rendered)
	p.after("5s").put("machine-os-builder", "Secret", "final-"+name, `{metadata: {labels: {%sephemeral-build-object: ""}}, data: {x: aGlkZGVu}}`, mc)
	p.put("machine-os-builder", "Job", job, `{metadata: {labels: {%smachine-os-build: %s}}, spec: {backoffLimit: 3}}`, mc, name)
	p.put("machine-os-builder", "MachineOSBuild", name, `{status: {conditions: [{type: Prepared, status: "True", reason: Prepared, message: Build Prepared and Pending},
		{type: Building, status: "False"}, {type: Succeeded, status: "False"}, {type: Failed, status: "False"}]}}`)
	wait := 10 * time.Second
	for attempt := 0; ; attempt++ {
		pod := fmt.Sprintf("%s-%c%c%c", job, 'a'+attempt, 'x', 'q')
		p.put("job-controller", "Pod", pod, `{metadata: {labels: {batch.kubernetes.io/job-name: %s}}, status: {phase: Pending}}`, job)
		p.put("job-controller", "Job", job, `{status: {active: 1, failed: %d}}`, attempt)
		p.put("scheduler", "Pod", pod, `{spec: {nodeName: worker-1}}`)
		p.after("2s").put("kubelet", "Pod", pod, `{status: {phase: Running, containerStatuses: [{name: image-build, ready: true}, {name: wait-for-done, ready: true}]}}`)
		if attempt == 0 {
			p.put("machine-os-builder", "MachineOSBuild", name, `{status: {conditions: [{type: Prepared, status: "False"},
				{type: Building, status: "True", reason: Building, message: Image Build In Progress}]}}`)
		}
		if attempt < failures {
			p.after("15s")
			p.rec.Add(history.Record{Fault: &history.Fault{Name: "repository unreachable", Event: "fired", Message: "repository appstream"}})
			p.rec.Add(history.Record{Pod: &history.Pod{Name: pod, Container: "image-build", ExitCode: 1,
				Log: "STEP 2: RUN rpm-ostree install tree\nerror: Failed to download metadata for repo 'appstream': <timeout>\n"}})
			p.put("kubelet", "Pod", pod, `{status: {phase: Failed, containerStatuses: [{name: image-build, ready: false}, {name: wait-for-done, ready: false}]}}`)
			if attempt == 3 {
				p.after("1s").put("job-controller", "Job", job, `{status: {active: 0, failed: 4, conditions: [{type: Failed, status: "True", reason: BackoffLimitExceeded, message: Job has reached the specified backoff limit}]}}`)
				p.after("5s").put("machine-os-builder", "MachineOSBuild", name, `{status: {conditions: [{type: Building, status: "False"}, {type: Failed, status: "True", reason: Failed, message: Build Failed}]}}`)
				return
			}
			p.now += wait
			wait *= 2
			continue
		}
		p.after("6m")
		p.rec.Add(history.Record{Registry: &history.Registry{Host: "r", Method: "PUT", Path: "/v2/openshift/os-image/blobs/uploads/-", Account: "pusher", Status: 201, Caller: "build-pod/" + pod}})
		p.rec.Add(history.Record{Registry: &history.Registry{Host: "r", Method: "PUT", Path: "/v2/openshift/os-image/manifests/" + name, Account: "pusher", Status: 201, Caller: "build-pod/" + pod}})
		p.put("kubelet", "Pod", pod, `{status: {phase: Succeeded}}`)
		p.after("1s").put("job-controller", "Job", job, `{status: {active: 0, succeeded: 1, conditions: [{type: Complete, status: "True", reason: CompletionsReached, message: Reached expected number of succeeded pods}]}}`)
		p.after("5s").put("machine-os-builder", "MachineOSBuild", name, `{status: {digestedImagePushSpec: "%s@%s",
			conditions: [{type: Building, status: "False"}, {type: Succeeded, status: "True", reason: Ready, message: Build Ready}]}}`, pushSpec, digest)
		p.put("machine-os-builder", "MachineOSConfig", "layered", `{metadata: {annotations: {%scurrent-machine-os-build: %s}}, status: {currentImagePullSpec: "%s@%s"}}`, mc, name, pushSpec, digest)
		p.remove("garbage-collector", "Pod", pod)
		p.remove("garbage-collector", "Job", job)
		return
	}
}

// rollout updates a node to an image; refused says that the registry does not let it pull.
func (p *tape) rollout(node, digest string, boot int, refused bool) {
	annotate := func(author, more string, args ...any) {
		p.put(author, "Node", node, `{metadata: {annotations: {%s}}}`, fmt.Sprintf(strings.ReplaceAll(more, "^", mc), args...))
	}
	p.after("5s")
	annotate("node-controller", `^desiredImage: "%s@%s"`, pushSpec, digest)
	p.put("node-controller", "MachineConfigPool", "layered", `{status: {unavailableMachineCount: 1}}`)
	p.after("400ms")
	annotate("machine-config-daemon", `^state: Working, ^desiredDrain: drain-%s`, rendered)
	p.after("200ms").put("drain-controller", "Node", node, `{spec: {unschedulable: true}}`)
	p.after("30s")
	annotate("drain-controller", `^lastAppliedDrain: drain-%s`, rendered)
	if refused {
		for range 6 {
			p.after("30s").rec.Add(history.Record{Registry: &history.Registry{Host: "r", Method: "GET", Path: "/v2/openshift/os-image/manifests/" + digest, Account: "puller", Status: 401, Caller: "node/" + node}})
			if p.objects["Node/"+node].GetAnnotations()[mc+"state"] != "Degraded" {
				annotate("machine-config-daemon", `^state: Degraded, ^reason: "failed to update OS to %s@%s: error: remote error: unauthorized"`, pushSpec, digest)
			}
		}
		p.put("node-controller", "MachineConfigPool", "layered", `{status: {degradedMachineCount: 1, conditions: [{type: Degraded, status: "True", reason: "1 nodes are reporting degraded status", message: "Node %s is reporting: \"failed to update OS\""}]}}`, node)
		return
	}
	image := history.Node{Node: node, Image: pushSpec + "@" + digest, Digest: digest, Version: "418.94.202502100215-0", Layered: true}
	add := func(event string, boot int, message string) {
		r := image
		r.Event, r.Boot, r.Message = event, boot, message
		p.rec.Add(history.Record{Node: &r})
	}
	add("rebase", boot-1, "1234567890 bytes, 2m0s")
	p.after("2m")
	add("stage", boot-1, "")
	annotate("machine-config-daemon", `^post-config-action: Rebooting`)
	p.rec.Add(history.Record{Node: &history.Node{Node: node, Event: "shutdown", Boot: boot - 1}})
	p.after("40s").put("node-lifecycle", "Node", node, `{status: {conditions: [{type: Ready, status: "Unknown"}]}}`)
	p.after("1m50s")
	add("boot", boot, "")
	p.after("20s").put("kubelet", "Node", node, `{status: {conditions: [{type: Ready, status: "True"}]}}`)
	annotate("machine-config-daemon", `^post-config-action: ""`)
	p.after("1s")
	annotate("machine-config-daemon", `^desiredDrain: uncordon-%s`, rendered)
	p.after("2s").put("drain-controller", "Node", node, `{spec: {unschedulable: null}, metadata: {annotations: {%slastAppliedDrain: uncordon-%s}}}`, mc, rendered)
	annotate("machine-config-daemon", `^state: Done, ^currentImage: "%s@%s"`, pushSpec, digest)
}

// failed is a run with a build that fails four times, one that succeeds, and a node that may not pull the image.
func failed(t *testing.T) *Result {
	p := newTape(t, "secret-rotation/revoked")
	p.cluster(3)
	p.begin("make the package repository unreachable")
	p.rec.Add(history.Record{Fault: &history.Fault{Name: "repository unreachable", Event: "armed", Message: "on repository do unreachable"}})
	p.mark("did", "arm fault repository unreachable")
	p.mark("acted", "")
	p.mark("end", "")
	p.begin("four attempts, then <Failed>")
	p.put("scenario", "MachineOSConfig", "layered", `{spec: {machineConfigPool: {name: layered}, containerFile: [{content: FROM configs}]}}`)
	p.mark("did", "apply machineosconfig/layered")
	p.mark("acted", "")
	p.build(oneHash, oneDigest, 4)
	p.after("5s").put("machine-os-builder", "MachineConfigPool", "layered", `{status: {updatedMachineCount: 0, readyMachineCount: 0, conditions: [{type: ImageBuildDegraded, status: "True", reason: BuildFailed, message: Failed to build OS image for pool layered}, {type: Updated, status: "False"}]}}`)
	p.mark("end", "")
	p.after("2h").begin("repair it, and it rolls out")
	p.rec.Add(history.Record{Fault: &history.Fault{Name: "repository unreachable", Event: "healed"}})
	p.mark("did", "heal repository")
	p.put("scenario", "MachineOSConfig", "layered", `{spec: {containerFile: [{content: "FROM configs AS final"}]}}`)
	p.mark("did", "patch machineosconfig/layered")
	p.mark("acted", "")
	p.build(twoHash, twoDigest, 0)
	p.remove("machine-os-builder", "MachineOSBuild", "layered-"+oneHash)
	p.put("node-controller", "MachineConfigPool", "layered", `{status: {conditions: [{type: ImageBuildDegraded, status: "False"}, {type: Updating, status: "True", message: "Pool is waiting for nodes to apply OS image (mosb: layered-%s)"}]}}`, twoHash)
	p.rollout("layered-1", twoDigest, 2, false)
	p.after("5s").put("node-controller", "MachineConfigPool", "layered", `{status: {updatedMachineCount: 1, readyMachineCount: 1, unavailableMachineCount: 0}}`)
	p.rec.Add(history.Record{Component: &history.Component{Name: "machine-os-builder", Event: "crashed", Message: "before write 3: update machineosbuild"}})
	p.after("30s").rec.Add(history.Record{Component: &history.Component{Name: "machine-os-builder", Event: "started"}})
	for range 3 {
		p.after("10s").rec.Add(history.Record{Request: &history.Request{Author: "drain-controller", Verb: "create", Subresource: "eviction", GVK: schema.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Name: "app-1", Code: 429, Reason: "TooManyRequests", Message: "Cannot evict pod as it would violate the pod's disruption budget."}})
		p.rec.Add(history.Record{Request: &history.Request{Author: "node-controller", Verb: "update", GVK: schema.GroupVersionKind{Version: "v1", Kind: "Node"},
			Name: "layered-2", Code: 409, Reason: "Conflict", Message: "the object has been modified"}})
	}
	p.rollout("layered-2", twoDigest, 2, true)
	p.after("20m").mark("deadline", "")
	at := p.seq()
	p.mark("end", "")
	begin := origin(p.rec.History)
	return &Result{
		Name: "secret-rotation/revoked", File: "scenarios/secrets/rotation.yaml", Verdict: Failed, VirtualSeconds: (p.now - begin).Seconds(),
		WallSeconds: 0.1234, Revisions: p.revision, History: p.rec.History,
		Scenario: &scenario.Scenario{Name: "secret-rotation/revoked", Area: "secrets", Shows: "a node that may not pull degrades & recovers",
			Source: map[string][]string{"upstream": {"TestGracefulBuildFailureRecovery"}, "seed": {`"In the case of a build failure"`}},
			Steps: []scenario.Step{
				{Name: "make the package repository unreachable", Within: 2 * time.Hour},
				{Name: "four attempts, then <Failed>", Within: 15 * time.Minute, Expect: []scenario.Expectation{{Text: "machineosbuild layered-*: {condition: Failed}"}}},
				{Name: "repair it, and it rolls out", Within: time.Hour, Expect: []scenario.Expectation{{Text: "machineconfigpool layered: {updated: 3}"}}},
				{Name: "label it back", Within: time.Hour},
			}},
		Failures: []Failure{{Check: "step 3, repair it, and it rolls out: expect machineconfigpool layered: {updated: 3}",
			Message:  "not met within 1h0m0s: machineconfigpool layered: status.updatedMachineCount is 1, not 3",
			Revision: p.revision, VirtualSeconds: (p.now - begin).Seconds(), Seq: at},
			{Check: "invariant I9", Message: "a node never waits:\n\tlayered-2 does", Revision: p.revision - 1, VirtualSeconds: (p.now - begin - 20*time.Minute).Seconds(), Seq: at - 1}},
	}
}

// passed is a short run with a build and nodes that roll out one after the other.
func passed(t *testing.T, nodes int) *Result {
	p := newTape(t, "happy-path")
	p.cluster(nodes)
	p.begin("ask for an image")
	p.put("scenario", "MachineOSConfig", "layered", `{spec: {machineConfigPool: {name: layered}}}`)
	p.mark("did", "apply machineosconfig/layered")
	p.mark("acted", "")
	p.put("node-controller", "MachineConfigPool", "layered", `{status: {updatedMachineCount: 0, readyMachineCount: 0, conditions: [{type: Updated, status: "False"}, {type: Updating, status: "True", message: Pool is waiting for a new OS image build to start}]}}`)
	p.build(oneHash, oneDigest, 0)
	for n := range nodes {
		p.rollout(fmt.Sprintf("layered-%d", n+1), oneDigest, 2, false)
		p.after("5s").put("node-controller", "MachineConfigPool", "layered", `{status: {updatedMachineCount: %d, readyMachineCount: %d, unavailableMachineCount: 0}}`, n+1, n+1)
	}
	p.put("node-controller", "MachineConfigPool", "layered", `{status: {conditions: [{type: Updating, status: "False"}, {type: Updated, status: "True", message: All nodes are updated}]}}`)
	p.mark("end", "")
	return &Result{Name: "happy-path", File: "scenarios/happy-path.yaml", Verdict: Passed, VirtualSeconds: (p.now - 40*time.Second).Seconds(),
		WallSeconds: 0.0351, Revisions: p.revision, History: p.rec.History,
		Scenario: &scenario.Scenario{Name: "happy-path", Shows: "an image is built and rolled out", Steps: []scenario.Step{{Name: "ask for an image", Within: time.Hour}}}}
}

func suite(t *testing.T) *Suite {
	return &Suite{Cluster: "sim", Seed: 7, Scenarios: []*Result{passed(t, 3), failed(t),
		{Name: "on-kind", File: "scenarios/kind.yaml", Verdict: Skipped, Scenario: &scenario.Scenario{Needs: []string{"kubelet"}}},
		{Name: "broken", File: "scenarios/broken.yaml", Verdict: Errored, WallSeconds: 0.002, Err: errors.New("bring up cluster two-pools: pool <master> is not ready")},
	}}
}
