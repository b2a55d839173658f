package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/layersim/layersim/controllers/layering"
)

const (
	confA = "rendered-layered-a"
	confB = "rendered-layered-b"
	img1  = "registry.example/ocl/layered@sha256:1"
	img2  = "registry.example/ocl/layered@sha256:2"
)

// testNode makes a node from a few words: "at=<config>[/image]", "to=<config>[/image]", a state, "cordoned", "notready",
// "zone=<z>", "age=<n>", "tainted". Without "to" it is where it should be, without a state it is Done.
func testNode(name, words string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{},
		Annotations: map[string]string{layering.State: layering.StateDone}, CreationTimestamp: metav1.Unix(1000, 0)}}
	ready := corev1.ConditionTrue
	put := func(config, image, value string) {
		c, i, _ := strings.Cut(value, "/")
		n.Annotations[config] = c
		if i != "" {
			n.Annotations[image] = i
		} else {
			delete(n.Annotations, image)
		}
	}
	for word := range strings.FieldsSeq(words) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "at":
			put(layering.CurrentConfig, layering.CurrentImage, value)
			put(layering.DesiredConfig, layering.DesiredImage, value)
		case "to":
			put(layering.DesiredConfig, layering.DesiredImage, value)
		case "cordoned":
			n.Spec.Unschedulable = true
		case "notready":
			ready = corev1.ConditionFalse
		case "zone":
			n.Labels[corev1.LabelTopologyZone] = value
		case "age":
			var age int64
			fmt.Sscan(value, &age)
			n.CreationTimestamp = metav1.Unix(1000-age, 0)
		case "tainted":
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: layering.UpdateInProgressTaint, Effect: corev1.TaintEffectPreferNoSchedule})
		case "fresh":
			n.Annotations = nil
		default:
			n.Annotations[layering.State] = word
		}
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	return n
}

func names(nodes []*corev1.Node) string {
	var list []string
	for _, n := range nodes {
		list = append(list, n.Name)
	}
	return strings.Join(list, " ")
}

func TestMaxUnavailable(t *testing.T) {
	for _, tt := range []struct {
		value string
		nodes int
		want  int
	}{
		{"", 5, 1}, {"0", 5, 1}, {"2", 5, 2}, {"50%", 3, 1}, {"10%", 3, 1}, {"34%", 3, 1}, {"67%", 3, 2}, {"100%", 3, 3},
		{"-1", 5, 1}, {"0%", 5, 1}, {"50%", 0, 1}, {"half", 5, -1}, {"1.5", 5, -1},
	} {
		pool := &mcfgv1.MachineConfigPool{}
		if tt.value != "" {
			v := intstr.Parse(tt.value)
			pool.Spec.MaxUnavailable = &v
		}
		got, err := maxUnavailable(pool, tt.nodes)
		if err != nil {
			got = -1
		}
		if got != tt.want {
			t.Errorf("maxUnavailable %q of %d nodes = %d (%v), want %d", tt.value, tt.nodes, got, err, tt.want)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, tt := range []struct {
		name   string
		target string // config[/image]
		limit  int
		nodes  string // one a line
		want   string
	}{
		{"one at a time", "b", 1, "at=a\nat=a\nat=a", "n0"},
		{"two at a time", "b", 2, "at=a\nat=a\nat=a", "n0 n1"},
		{"all are there", "b", 2, "at=b\nat=b", ""},
		{"zone, then age, then name; no zone last", "b", 6,
			"at=a\nat=a zone=2 age=9\nat=a zone=1 age=1\nat=a zone=1 age=5\nat=a age=7\nat=a zone=2 age=9", "n3 n2 n1 n5 n4 n0"},
		{"one is on its way", "b", 1, "at=a to=b\nat=a", ""},
		{"on its way and working", "b", 1, "at=a to=b Working cordoned\nat=a", ""},
		{"one is on its way, two allowed", "b", 2, "at=a to=b\nat=a\nat=a", "n1"},
		{"cordoned by hand: left alone, and counts", "b", 1, "at=a cordoned\nat=a", ""},
		{"cordoned by hand, two allowed", "b", 2, "at=a cordoned\nat=a\nat=a", "n1"},
		{"not ready counts", "b", 1, "at=a notready\nat=a", ""},
		{"updated but not ready counts", "b", 1, "at=b notready\nat=a", ""},
		{"a failing one counts", "b", 1, "at=a to=b Degraded\nat=a", ""},
		{"a failing one gets the next target for nothing", "c", 1, "at=a to=b Degraded cordoned\nat=a", "n0"},
		{"and leaves room for others", "c", 2, "at=a to=b Unreconcilable\nat=a\nat=a", "n0 n1"},
		{"one that works on an old target finishes", "c", 1, "at=a to=b Working\nat=a", ""},
		{"joining layering, lagging daemon", "a/i", 1, "at=a to=a/i\nat=a", ""},
		{"joining layering", "a/i", 1, "at=a\nat=a", "n0"},
		{"leaving layering, lagging daemon", "a", 1, "at=a/i to=a\nat=a/i", ""},
		{"leaving layering", "a", 1, "at=a/i\nat=a/i", "n0"},
		{"next image fails: blocks others", "a/j", 1, "at=a/i to=a/j Degraded\nat=a/i", ""},
		{"next image fails, a newer one repairs", "a/k", 1, "at=a/i to=a/j Degraded cordoned\nat=a/i", "n0"},
		{"a node without a daemon yet", "b", 1, "fresh\nat=a", ""},
		{"a node without a daemon yet, two allowed", "b", 2, "fresh\nat=a\nat=a", "n1"},
		{"limit was lowered", "b", 1, "at=a to=b\nat=a to=b\nat=a", ""},
	} {
		var nodes []*corev1.Node
		for i, words := range strings.Split(tt.nodes, "\n") {
			nodes = append(nodes, testNode(fmt.Sprintf("n%d", i), words))
		}
		config, image, _ := strings.Cut(tt.target, "/")
		if got := names(candidates(nodes, layering.Target{Config: config, Image: image}, tt.limit)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// world makes an observation of pool layered. build is the progress of its build, "none" for no build, "plain" for no
// MachineOSConfig, followed by "paused" if it is.
func world(state string, nodes ...*corev1.Node) *observed {
	pool := &mcfgv1.MachineConfigPool{ObjectMeta: metav1.ObjectMeta{Name: "layered", Generation: 7}}
	pool.Spec.Configuration.Name = confA
	s := &observed{pool: pool, nodes: nodes, target: layering.Target{Config: confA}}
	state, paused, _ := strings.Cut(state, " ")
	pool.Spec.Paused = paused != ""
	if state == "plain" {
		return s
	}
	s.config = &mcfgv1.MachineOSConfig{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}
	s.config.Status.CurrentImagePullSpec = img1
	s.target.Image = img1
	if state == "none" {
		return s
	}
	s.build = &mcfgv1.MachineOSBuild{ObjectMeta: metav1.ObjectMeta{Name: "layered-h"}}
	s.build.Spec.MachineConfig.Name = confA
	if state != "created" {
		s.build.Status.Conditions = []metav1.Condition{{Type: state, Status: metav1.ConditionTrue}}
	}
	if state == "Succeeded" {
		s.build.Status.DigestedImagePushSpec = img1
	}
	return s
}

// table is a pool as "oc get" prints it: UPDATED UPDATING DEGRADED MACHINE READY UPDATED DEGRADED.
func table(status *mcfgv1.MachineConfigPoolStatus) string {
	c := func(kind mcfgv1.MachineConfigPoolConditionType) corev1.ConditionStatus {
		return layering.PoolCondition(status.Conditions, kind).Status
	}
	return fmt.Sprint(c("Updated"), " ", c("Updating"), " ", c("Degraded"), " ", status.MachineCount, " ",
		status.ReadyMachineCount, " ", status.UpdatedMachineCount, " ", status.DegradedMachineCount)
}

func message(status *mcfgv1.MachineConfigPoolStatus, kind mcfgv1.MachineConfigPoolConditionType) string {
	return layering.PoolCondition(status.Conditions, kind).Message
}

// TestUpdating is the table of texts: each state of a build, paused or not, with a node that still has to be updated
// and with one that is.
func TestUpdating(t *testing.T) {
	here := "at=" + confA + "/" + img1
	there := "at=" + confB
	for _, tt := range []struct {
		state, node, table, text string
	}{
		{"plain", "at=" + confA, "True False False 1 1 1 0", ""},
		{"plain", there, "False True False 1 0 0 0", "All nodes are updating to MachineConfig " + confA},
		{"plain", here, "False True False 1 0 0 0", "All nodes are updating to MachineConfig " + confA},
		{"plain paused", "at=" + confA, "True False False 1 1 1 0", ""},
		{"plain paused", there, "False False False 1 0 0 0", "Pool is paused; will not update to MachineConfig " + confA},
		{"plain paused", here, "False False False 1 0 0 0", "Pool is paused; will not update to MachineConfig " + confA},

		{"none", here, "False True False 1 0 0 0", "Pool is waiting for a new OS image build to start (mosc: layered)"},
		{"created", here, "False True False 1 1 1 0", "Pool is waiting for OS image build to start (mosb: layered-h)"},
		{"Prepared", here, "False True False 1 1 1 0", "Pool is waiting for OS image build to start (mosb: layered-h)"},
		{"Building", here, "False True False 1 1 1 0", "Pool is waiting for OS image build to complete (mosb: layered-h)"},
		{"Succeeded", here, "True False False 1 1 1 0", ""},
		{"Succeeded", there, "False True False 1 0 0 0", "Pool is waiting for nodes to apply OS image (mosb: layered-h)"},
		{"Failed", here, "False False False 1 1 1 0", "Pool update stopped due to OS image build failure (mosb: layered-h)"},
		{"Interrupted", here, "False False False 1 1 1 0",
			"Pool update stopped due to OS image build being interrupted (mosb: layered-h)"},
		{"Succeeded", "at=" + confB + " to=" + confA + "/" + img1 + " Degraded", "False False True 1 0 0 1",
			"Pool update paused due to degraded condition"},

		{"none paused", there, "False True False 1 0 0 0", "Pool is paused; waiting for a new OS image build to start (mosc: layered)"},
		{"created paused", there, "False True False 1 0 0 0",
			"Pool is paused; OS image build has been created but not yet started (mosb: layered-h)"},
		{"Prepared paused", there, "False True False 1 0 0 0",
			"Pool is paused; OS image build has been prepared but will not rollout (mosb: layered-h)"},
		{"Building paused", here, "False True False 1 1 1 0", "Pool is paused; OS image build in progress (mosb: layered-h)"},
		{"Succeeded paused", here, "True False False 1 1 1 0", "Pool is paused; OS image build completed successfully (mosb: layered-h)"},
		// The product documentation's paused pool.
		{"Succeeded paused", there, "False False False 1 0 0 0", "Pool is paused; OS image build completed successfully (mosb: layered-h)"},
		{"Failed paused", there, "False False False 1 0 0 0", "Pool is paused; OS image build failed (mosb: layered-h)"},
		{"Interrupted paused", there, "False False False 1 0 0 0", "Pool is paused; OS image build was interrupted (mosb: layered-h)"},
	} {
		s := world(tt.state, testNode("n0", tt.node))
		status := s.status(time.Unix(5000, 0))
		if got := table(status); got != tt.table {
			t.Errorf("%s, node %s: %s, want %s", tt.state, tt.node, got, tt.table)
		}
		if got := message(status, "Updating"); got != tt.text {
			t.Errorf("%s, node %s: %q, want %q", tt.state, tt.node, got, tt.text)
		}
		// No state writes again and again.
		s.pool.Status = *status
		if diff := cmp.Diff(*status, *s.status(time.Unix(6000, 0))); diff != "" {
			t.Errorf("%s, node %s: a second sync changes the status:\n%s", tt.state, tt.node, diff)
		}
	}
}

func TestStatusRollsUp(t *testing.T) {
	now := time.Unix(5000, 0)
	condition := func(kind mcfgv1.MachineConfigPoolConditionType, message string) mcfgv1.MachineConfigPoolCondition {
		return mcfgv1.MachineConfigPoolCondition{Type: kind, Status: corev1.ConditionTrue, Reason: "R", Message: message}
	}
	for _, tt := range []struct {
		name       string
		state      string
		conditions []mcfgv1.MachineConfigPoolCondition
		degraded   corev1.ConditionStatus
		message    string
	}{
		{"nothing", "Succeeded", nil, "False", ""},
		{"render", "Succeeded", []mcfgv1.MachineConfigPoolCondition{condition("RenderDegraded", "why")}, "True", "why"},
		{"build", "Failed", []mcfgv1.MachineConfigPoolCondition{condition("ImageBuildDegraded", "why")}, "True",
			"Custom OS image build failed"},
		{"left by a MachineOSConfig that is gone", "plain",
			[]mcfgv1.MachineConfigPoolCondition{condition("ImageBuildDegraded", "why")}, "False", ""},
	} {
		s := world(tt.state)
		s.pool.Status.Conditions = tt.conditions
		status := s.status(now)
		c := layering.PoolCondition(status.Conditions, "Degraded")
		if c.Status != tt.degraded || c.Message != tt.message {
			t.Errorf("%s: Degraded=%s %q, want %s %q", tt.name, c.Status, c.Message, tt.degraded, tt.message)
		}
		for _, want := range tt.conditions {
			if got := layering.PoolCondition(status.Conditions, want.Type); got == nil || *got != want {
				t.Errorf("%s: %s was changed to %+v", tt.name, want.Type, got)
			}
		}
	}

	s := world("plain", testNode("n0", "at="+confA), testNode("n1", "at="+confB+" to="+confA+" Degraded"),
		testNode("n2", "at="+confB+" to="+confA+" Unreconcilable cordoned"), testNode("n3", "at="+confB+" to="+confA+" Working"),
		testNode("n4", "at="+confA+" notready"))
	s.nodes[1].Annotations[layering.Reason] = "disk full"
	status := s.status(now)
	if got, want := table(status), "False True True 5 1 2 2"; got != want {
		t.Errorf("mixed pool: %s, want %s", got, want)
	}
	if status.UnavailableMachineCount != 3 { // n2, n3, n4
		t.Errorf("unavailableMachineCount = %d, want 3", status.UnavailableMachineCount)
	}
	c := layering.PoolCondition(status.Conditions, "NodeDegraded")
	if c.Reason != "2 nodes are reporting degraded status on sync" ||
		c.Message != `Node n1 is reporting: "disk full", Node n2 is reporting: ""` {
		t.Errorf("NodeDegraded = %q %q", c.Reason, c.Message)
	}
	if status.ObservedGeneration != 7 || status.Configuration.Name != "" {
		t.Errorf("observedGeneration %d, configuration %q, want 7 and none yet", status.ObservedGeneration, status.Configuration.Name)
	}
	if empty := world("plain").status(now); table(empty) != "True False False 0 0 0 0" || empty.Configuration.Name != confA {
		t.Errorf("an empty pool is %s with configuration %q", table(empty), empty.Configuration.Name)
	}
}

// TestGate: in a layered pool nothing may be told to a node unless build, MachineOSConfig and pool agree.
func TestGate(t *testing.T) {
	now := metav1.Unix(1, 0)
	for _, tt := range []struct {
		name   string
		state  string
		change func(*observed)
		want   bool
	}{
		{"plain", "plain", nil, true},
		{"agreed", "Succeeded", nil, true},
		{"no build", "none", nil, false},
		{"created", "created", nil, false},
		{"prepared", "Prepared", nil, false},
		{"building", "Building", nil, false},
		{"failed", "Failed", nil, false},
		{"interrupted", "Interrupted", nil, false},
		{"digest known, not succeeded", "Building", func(s *observed) { s.build.Status.DigestedImagePushSpec = img1 }, false},
		{"no image", "Succeeded", func(s *observed) { s.target.Image = "" }, false},
		{"other image", "Succeeded", func(s *observed) { s.build.Status.DigestedImagePushSpec = img2 }, false},
		{"other config", "Succeeded", func(s *observed) { s.build.Spec.MachineConfig.Name = confB }, false},
		{"build on its way out", "Succeeded", func(s *observed) { s.build.DeletionTimestamp = &now }, false},
		{"config on its way out", "Succeeded", func(s *observed) { s.config.DeletionTimestamp = &now }, false},
		{"paused", "Succeeded paused", nil, false},
		{"pool on its way out", "Succeeded", func(s *observed) { s.pool.DeletionTimestamp = &now }, false},
		{"nothing rendered", "plain", func(s *observed) { s.target.Config = "" }, false},
	} {
		s := world(tt.state, testNode("n0", "at="+confB))
		if tt.change != nil {
			tt.change(s)
		}
		p := s.plan()
		if got := len(p.targets) > 0; got != tt.want || p.acts() != tt.want {
			t.Errorf("%s: rolls out %t, acts %t, want %t", tt.name, got, p.acts(), tt.want)
		}
	}
}

func TestTaint(t *testing.T) {
	s := world("Succeeded", testNode("n0", "at="+confA), testNode("n1", "at="+confA+" to="+confA+"/"+img1+" tainted"),
		testNode("n2", "at="+confA+"/"+img1), testNode("n3", "at="+confB+" tainted"), testNode("n4", "fresh"))
	if got := names(s.plan().upkeep); got != "n0 n1" {
		t.Errorf("taints of %q are to change, want those of n0 and n1", got)
	}
	for i, want := range []bool{true, false} {
		s.keepUp(s.nodes[i])
		if hasTaint(s.nodes[i]) != want {
			t.Errorf("node n%d tainted: %t, want %t", i, !want, want)
		}
		if !s.keptUp(s.nodes[i]) {
			t.Errorf("node n%d isn't kept up after keepUp", i)
		}
	}
}
