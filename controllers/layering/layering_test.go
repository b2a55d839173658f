package layering_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/layersim/layersim/controllers/layering"
)

func pool(name string, selector *metav1.LabelSelector) mcfgv1.MachineConfigPool {
	return mcfgv1.MachineConfigPool{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: mcfgv1.MachineConfigPoolSpec{NodeSelector: selector}}
}

func role(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{layering.NodeRolePrefix + name: ""}}
}

func node(name string, roles ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}, Annotations: map[string]string{}}}
	for _, r := range roles {
		n.Labels[layering.NodeRolePrefix+r] = ""
	}
	return n
}

func TestMembership(t *testing.T) {
	m := layering.NewMembership([]mcfgv1.MachineConfigPool{
		pool("worker", role("worker")), pool("master", role("master")), pool("layered", role("layered")),
		pool("infra", role("infra")), pool("nothing", nil), pool("everything", &metav1.LabelSelector{}),
		pool("broken", &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Bogus"}}}),
	})
	windows := node("n", "worker")
	windows.Labels["kubernetes.io/os"] = "windows"
	for _, tt := range []struct {
		node *corev1.Node
		want string
	}{
		{node("n"), ""},
		{node("n", "worker"), "worker"},
		{node("n", "master"), "master"},
		{node("n", "master", "worker"), "master"},
		{node("n", "layered"), "layered"},
		{node("n", "layered", "worker"), "layered worker"},
		{node("n", "layered", "master"), "master"},
		{node("n", "layered", "master", "worker"), "master worker"},
		{node("n", "layered", "infra", "worker"), "infra,layered"},
		{node("n", "layered", "infra", "master"), "infra,layered"},
		{windows, ""},
	} {
		names, err := m.Of(tt.node)
		got := strings.Join(names, " ")
		var ambiguous *layering.AmbiguousError
		if errors.As(err, &ambiguous) {
			got += strings.Join(ambiguous.Pools, ",")
		}
		if got != tt.want {
			t.Errorf("node with labels %v belongs to %q, want %q", tt.node.Labels, got, tt.want)
		}
		if want := slices.Concat(names, []string{""})[0]; m.Primary(tt.node) != want {
			t.Errorf("Primary(%v) = %q, want %q", tt.node.Labels, m.Primary(tt.node), want)
		}
	}

	nodes := []corev1.Node{*node("c", "layered", "worker"), *node("b", "worker"), *node("a", "layered"),
		*node("d", "layered", "infra")}
	members, ambiguous := m.Members("layered", nodes)
	var got []string
	for _, n := range members {
		got = append(got, n.Name)
	}
	if diff := cmp.Diff([]string{"a", "c"}, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if len(ambiguous) != 1 || ambiguous[0].Node != "d" {
		t.Errorf("ambiguous = %v, want node d", ambiguous)
	}
	if _, ambiguous := m.Members("worker", nodes); len(ambiguous) != 0 {
		t.Errorf("pool worker was told of %v, which isn't its business", ambiguous)
	}
}

// TestNodeState is the truth table of spec and bugs: which of a node's annotations make it done, available, updated.
func TestNodeState(t *testing.T) {
	const a, b, i, j = "rendered-a", "rendered-b", "registry.example/os@sha256:1", "registry.example/os@sha256:2"
	for _, tt := range []struct {
		name                               string
		curConf, desConf, curImage, desImg string
		state                              string
		cordoned, notReady                 bool
		target                             layering.Target
		want                               string
	}{
		{"plain and done", a, a, "", "", "Done", false, false, layering.Target{Config: a}, "done available targeted updated"},
		{"targeted, not begun", a, b, "", "", "Done", false, false, layering.Target{Config: b}, "targeted"},
		{"joins layering, not begun", a, a, "", i, "Done", false, false, layering.Target{Config: a, Image: i}, "targeted"},
		{"leaves layering, not begun", a, a, i, "", "Done", false, false, layering.Target{Config: a}, "targeted"},
		{"next image, not begun", a, a, i, j, "Done", false, false, layering.Target{Config: a, Image: j}, "targeted"},
		{"layered and done", a, a, i, i, "Done", false, false, layering.Target{Config: a, Image: i}, "done available targeted updated"},
		{"done, but the pool moved on", a, a, i, i, "Done", false, false, layering.Target{Config: a, Image: j}, "done available"},
		{"layered node in a plain pool", a, a, i, i, "Done", false, false, layering.Target{Config: a}, "done available"},
		{"same config, still working", a, a, "", "", "Working", false, false, layering.Target{Config: a}, "targeted"},
		{"cordoned by hand", a, a, "", "", "Done", true, false, layering.Target{Config: a}, "done targeted updated"},
		{"not ready", a, a, "", "", "Done", false, true, layering.Target{Config: a}, "done targeted updated"},
		{"config fails", a, b, "", "", "Degraded", false, false, layering.Target{Config: b}, "targeted degraded failing"},
		{"image fails", a, a, i, j, "Degraded", false, false, layering.Target{Config: a, Image: j}, "targeted degraded"},
		{"unreconcilable", a, b, "", "", "Unreconcilable", false, false, layering.Target{Config: b}, "targeted degraded failing"},
		{"no daemon yet", "", "", "", "", "", false, false, layering.Target{Config: a}, ""},
	} {
		n := node("n")
		for key, value := range map[string]string{layering.CurrentConfig: tt.curConf, layering.DesiredConfig: tt.desConf,
			layering.CurrentImage: tt.curImage, layering.DesiredImage: tt.desImg, layering.State: tt.state} {
			if value != "" {
				n.Annotations[key] = value
			}
		}
		n.Spec.Unschedulable = tt.cordoned
		ready := corev1.ConditionTrue
		if tt.notReady {
			ready = corev1.ConditionUnknown
		}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
		var got []string
		for _, p := range []struct {
			name string
			is   bool
		}{
			{"done", layering.Done(n)}, {"available", layering.Available(n)}, {"targeted", layering.Targeted(n, tt.target)},
			{"updated", layering.Updated(n, tt.target)}, {"degraded", layering.Degraded(n)}, {"failing", layering.Failing(n)},
		} {
			if p.is {
				got = append(got, p.name)
			}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, s, tt.want)
		}
		if want := !layering.Available(n) && !(layering.Failing(n) && !tt.cordoned && !tt.notReady); layering.CountsUnavailable(n) != want {
			t.Errorf("%s: CountsUnavailable = %t, want %t", tt.name, !want, want)
		}
	}
}

func TestSetPoolCondition(t *testing.T) {
	first := time.Date(2026, 8, 20, 10, 0, 0, 5000, time.UTC)
	var list []mcfgv1.MachineConfigPoolCondition
	set := func(status corev1.ConditionStatus, message string, after time.Duration) bool {
		return layering.SetPoolCondition(&list, mcfgv1.MachineConfigPoolCondition{Type: "Updating", Status: status,
			Message: message}, first.Add(after))
	}
	at := func(after time.Duration) metav1.Time { return metav1.NewTime(first.Add(after).Truncate(time.Second)) }
	list = append(list, mcfgv1.MachineConfigPoolCondition{Type: "Updated"})
	for _, tt := range []struct {
		status  corev1.ConditionStatus
		message string
		after   time.Duration
		changed bool
		since   time.Duration
	}{
		{"True", "a", 0, true, 0},
		{"True", "a", time.Minute, false, 0},
		{"True", "b", 2 * time.Minute, true, 0},
		{"False", "b", 3 * time.Minute, true, 3 * time.Minute},
	} {
		if got := set(tt.status, tt.message, tt.after); got != tt.changed {
			t.Errorf("set %s %q: changed %t, want %t", tt.status, tt.message, got, tt.changed)
		}
		c := layering.PoolCondition(list, "Updating")
		if want := at(tt.since); !c.LastTransitionTime.Equal(&want) || c.Message != tt.message {
			t.Errorf("set %s %q: %+v, want transition at %s", tt.status, tt.message, c, want)
		}
	}
	if len(list) != 2 || list[1].Type != "Updating" {
		t.Errorf("conditions moved about: %v", list)
	}
}

func build(name, rendered string, progress mcfgv1.BuildProgress, digest string, age int) mcfgv1.MachineOSBuild {
	b := mcfgv1.MachineOSBuild{ObjectMeta: metav1.ObjectMeta{Name: name,
		CreationTimestamp: metav1.Unix(1000-int64(age), 0)}}
	b.Spec.MachineOSConfig.Name, b.Spec.MachineConfig.Name = "layered", rendered
	b.Status.DigestedImagePushSpec = mcfgv1.ImageDigestFormat(digest)
	for _, p := range []mcfgv1.BuildProgress{"Prepared", "Building", "Failed", "Interrupted", "Succeeded"} {
		status := metav1.ConditionFalse
		if p == progress {
			status = metav1.ConditionTrue
		}
		if progress != "" {
			b.Status.Conditions = append(b.Status.Conditions, metav1.Condition{Type: string(p), Status: status})
		}
	}
	return b
}

func TestCurrentBuildOf(t *testing.T) {
	deleted := build("x", "a", "Building", "", 0)
	now := metav1.Unix(1, 0)
	deleted.DeletionTimestamp = &now
	foreign := build("f", "a", "Building", "", 0)
	foreign.Spec.MachineOSConfig.Name = "other"
	for _, tt := range []struct {
		name       string
		annotation string
		reference  string
		image      string
		builds     []mcfgv1.MachineOSBuild
		want       string
	}{
		{"none", "", "", "", nil, ""},
		{"other config, stale annotation", "b", "", "", []mcfgv1.MachineOSBuild{build("b", "b", "Succeeded", "i", 0)}, ""},
		{"annotation to nowhere", "gone", "", "", []mcfgv1.MachineOSBuild{build("b", "a", "", "", 0)}, "b"},
		{"annotation decides over order and age", "old", "new", "inew", []mcfgv1.MachineOSBuild{
			build("new", "a", "Building", "", 0), build("old", "a", "Succeeded", "iold", 9)}, "old"},
		{"annotation decides the other way", "z", "", "", []mcfgv1.MachineOSBuild{
			build("a", "a", "Succeeded", "i1", 0), build("z", "a", "Failed", "", 9)}, "z"},
		{"under way first", "", "done", "i", []mcfgv1.MachineOSBuild{
			build("done", "a", "Succeeded", "i", 0), build("going", "a", "Prepared", "", 9)}, "going"},
		{"status before image", "", "s", "i", []mcfgv1.MachineOSBuild{
			build("d", "a", "Succeeded", "i", 0), build("s", "a", "Failed", "", 9)}, "s"},
		{"image before age", "", "", "i", []mcfgv1.MachineOSBuild{
			build("d", "a", "Succeeded", "i", 9), build("e", "a", "Succeeded", "other", 0)}, "d"},
		{"newest", "", "", "", []mcfgv1.MachineOSBuild{
			build("a", "a", "Failed", "", 0), build("b", "a", "Failed", "", 9)}, "a"},
		{"deleted last", "", "", "", []mcfgv1.MachineOSBuild{deleted, build("b", "a", "Failed", "", 9)}, "b"},
		{"another's", "", "", "", []mcfgv1.MachineOSBuild{foreign}, ""},
	} {
		config := &mcfgv1.MachineOSConfig{ObjectMeta: metav1.ObjectMeta{Name: "layered",
			Annotations: map[string]string{layering.CurrentBuild: tt.annotation}}}
		config.Status.CurrentImagePullSpec = mcfgv1.ImageDigestFormat(tt.image)
		if tt.reference != "" {
			config.Status.MachineOSBuild = &mcfgv1.ObjectReference{Name: tt.reference}
		}
		for range 2 { // whatever the order of the list
			got := ""
			if b := layering.CurrentBuildOf(config, tt.builds, "a"); b != nil {
				got = b.Name
			}
			if got != tt.want {
				t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
			}
			slices.Reverse(tt.builds)
		}
	}
}
