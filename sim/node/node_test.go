package node_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/node"
	"github.com/layersim/layersim/sim/registry"
	"github.com/layersim/layersim/sim/store"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	baseRepo    = "quay.io/openshift-release-dev/ocp-v4.0-art-dev"
	layeredRepo = "image-registry.openshift-image-registry.svc:5000/openshift-machine-config-operator/os-images"
)

var start = time.Date(2025, 2, 12, 19, 0, 0, 0, time.UTC)

// lab is the smallest driver that keeps the promises of package component: one key at a time, due times, retries.
type lab struct {
	t        testing.TB
	ctx      context.Context
	clock    *clocktesting.FakePassiveClock // nil where a world drives
	store    *store.Store
	client   *store.Client
	registry *registry.Registry
	fleet    *node.Fleet
	records  []history.Node
	events   *events.FakeRecorder
	running  []*running
	changes  []*store.Change
	base     string // pull specs by digest
	layered  string
	faults   map[string]error
	drain    bool // the drain controller answers
	crashes  bool // agents crash after each write
	crashed  int
	restart  func() // after a crash, by default start

	crashedAt int64
}

type running struct {
	declared component.Component
	r        reconcile.Reconciler
	due      map[reconcile.Request]time.Time
	failures map[reconcile.Request]int
}

func newLab(t *testing.T, options ...func(*node.FleetOptions)) *lab {
	t.Helper()
	c := clocktesting.NewFakePassiveClock(start)
	l := newLabAt(t, c, options...)
	l.clock = c
	l.store.OnChange(func(c *store.Change) { l.changes = append(l.changes, c) })
	return l
}

func newLabAt(t testing.TB, now clock.PassiveClock, options ...func(*node.FleetOptions)) *lab {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, mcfgv1.Install, machinev1beta1.Install,
		apiextensionsv1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	l := &lab{t: t, ctx: context.Background(), faults: map[string]error{}, events: events.NewFakeRecorder(10000), drain: true}
	l.store = store.New(store.Options{Clock: now, Scheme: s, Seed: 1})
	l.client = l.store.Client(store.ClientOptions{Author: "test"})
	crds, err := fixtures.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range crds {
		crd = crd.DeepCopy()
		if crd.Spec.Names.Kind == "ControllerConfig" { // only one field of its many required ones matters here
			keep := true
			crd.Spec.Versions[0].Schema.OpenAPIV3Schema = &apiextensionsv1.JSONSchemaProps{Type: "object",
				XPreserveUnknownFields: &keep}
		}
		l.create(crd)
	}
	for _, ns := range []string{"openshift-config", "default", "apps"} {
		if err := l.client.Get(l.ctx, client.ObjectKey{Name: ns}, &corev1.Namespace{}); err != nil {
			l.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
		}
	}

	l.registry = registry.New(registry.Options{Hosts: []string{"quay.io", "image-registry.openshift-image-registry.svc:5000"}})
	l.registry.SetAccount(registry.Account{Pull: []string{"quay.io/openshift-release-dev/*"}})
	l.registry.SetAccount(registry.Account{Name: "puller", Password: "one", Pull: []string{"*"}})
	base, err := builder.BaseImage(builder.BaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.base = l.put(baseRepo, base)
	layered, err := builder.BaseImage(builder.BaseOptions{Version: "418.94.202502100215-0",
		Date:     time.Date(2025, 2, 12, 19, 20, 44, 0, time.UTC),
		Packages: append(builder.DefaultPackages("5.14.0-427.50.1.el9_4"), builder.Package{Name: "rng-tools", EVR: "6.17-3.fc41", Arch: "x86_64"}),
		Labels:   map[string]string{builder.LabelConfig: "rendered-layered-1", builder.LabelPool: "layered"}})
	if err != nil {
		t.Fatal(err)
	}
	l.layered = l.put(layeredRepo, layered)

	l.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "openshift-config", Name: "pull-secret"},
		Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{}}`)}})
	l.nodeSecret("one")
	l.config("rendered-worker-1", "worker\n")
	l.config("rendered-layered-1", "worker\n")
	l.config("rendered-layered-2", "changed\n")

	o := node.FleetOptions{Clock: now, Transport: l.registry.Transport, Seed: 7,
		Observe: func(r history.Node) { l.records = append(l.records, r) },
		Before:  func(name, phase string) error { return l.faults[phase] },
		Wake: func(name, key string) {
			for _, r := range l.running {
				if r.declared.Name == name {
					r.add(reconcile.Request{NamespacedName: types.NamespacedName{Name: key}}, l.clock.Now())
				}
			}
		}}
	for _, option := range options {
		option(&o)
	}
	l.fleet = node.NewFleet(o)
	return l
}

func (l *lab) put(repo string, img v1.Image) string {
	l.t.Helper()
	digest, err := l.registry.PutImage(repo+":latest", img)
	if err != nil {
		l.t.Fatal(err)
	}
	return repo + "@" + digest
}

func (l *lab) create(o client.Object) {
	l.t.Helper()
	if err := l.client.Create(l.ctx, o); err != nil {
		l.t.Fatal(err)
	}
}

// config creates a rendered MachineConfig that holds /etc/motd.
func (l *lab) config(name, motd string) {
	l.create(&mcfgv1.MachineConfig{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: mcfgv1.MachineConfigSpec{
		OSImageURL: l.base,
		Config: runtime.RawExtension{Raw: fmt.Appendf(nil,
			`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/motd","contents":{"source":"data:,%s"}}]}}`,
			strings.ReplaceAll(motd, "\n", "%0A"))},
	}})
}

// nodeSecret writes the ControllerConfig's pull secret.
func (l *lab) nodeSecret(password string) {
	l.t.Helper()
	host, _, _ := strings.Cut(layeredRepo, "/")
	data := registry.DockerConfigJSON(host, registry.Account{Name: "puller", Password: password})
	cc := &mcfgv1.ControllerConfig{ObjectMeta: metav1.ObjectMeta{Name: layering.ControllerConfigName}}
	err := l.client.Get(l.ctx, client.ObjectKeyFromObject(cc), cc)
	if err == nil {
		cc.Spec.InternalRegistryPullSecret = data
		err = l.client.Update(l.ctx, cc)
	} else {
		cc.Spec.InternalRegistryPullSecret = data
		err = l.client.Create(l.ctx, cc)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// start starts the agents, and a drain controller that answers 5 s after a request.
func (l *lab) start() {
	l.t.Helper()
	l.running = nil
	for _, c := range append(l.fleet.Components(node.ComponentOptions{}), l.drainController()) {
		l.startOne(c)
	}
}

func (l *lab) startOne(c component.Component) {
	l.t.Helper()
	cl := l.store.Client(store.ClientOptions{Author: c.Name})
	r, err := c.New(component.Env{Client: crashing{cl, l}, Live: cl, Clock: l.clock, Rand: rand.New(rand.NewPCG(1, 2)), Recorder: l.events})
	if err != nil {
		l.t.Fatal(err)
	}
	run := &running{declared: c, r: r, due: map[reconcile.Request]time.Time{}, failures: map[reconcile.Request]int{}}
	l.running = append(l.running, run)
	for _, w := range c.Watches {
		gvk, err := apiutil.GVKForObject(w.Object, l.client.Scheme())
		if err != nil {
			l.t.Fatal(err)
		}
		list, err := l.client.Scheme().New(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		if err != nil {
			l.t.Fatal(err)
		}
		if err := l.client.List(l.ctx, list.(client.ObjectList)); err != nil {
			l.t.Fatal(err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			l.t.Fatal(err)
		}
		for _, o := range items {
			l.notify(run, w, nil, o.(client.Object))
		}
	}
}

func (l *lab) notify(r *running, w component.Watch, before, after client.Object) {
	if w.When != nil && !w.When(before, after) {
		return
	}
	o := after
	if o == nil {
		o = before
	}
	requests := []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(o)}}
	if w.Map != nil {
		requests = w.Map(l.ctx, l.client, o)
	}
	for _, q := range requests {
		r.add(q, l.clock.Now().Add(r.declared.Delay))
	}
}

func (r *running) add(q reconcile.Request, at time.Time) {
	if old, ok := r.due[q]; !ok || at.Before(old) {
		r.due[q] = at
	}
}

func (l *lab) drainController() component.Component {
	return component.Component{Name: "drain", Delay: 5 * time.Second, Watches: []component.Watch{{Object: &corev1.Node{}}},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			return reconcile.Func(func(ctx context.Context, q reconcile.Request) (reconcile.Result, error) {
				var n corev1.Node
				if err := env.Client.Get(ctx, q.NamespacedName, &n); err != nil {
					return reconcile.Result{}, client.IgnoreNotFound(err)
				}
				want := n.Annotations[layering.DesiredDrain]
				if want == n.Annotations[layering.LastAppliedDrain] || !l.drain {
					return reconcile.Result{}, nil
				}
				n.Spec.Unschedulable = strings.HasPrefix(want, "drain-")
				n.Annotations[layering.LastAppliedDrain] = want
				return reconcile.Result{}, env.Client.Update(ctx, &n)
			}), nil
		}}
}

// deliver hands all changes to the components.
func (l *lab) deliver() {
	for len(l.changes) > 0 {
		c := l.changes[0]
		l.changes = l.changes[1:]
		for _, r := range l.running {
			for _, w := range r.declared.Watches {
				gvk, err := apiutil.GVKForObject(w.Object, l.client.Scheme())
				if err != nil {
					l.t.Fatal(err)
				}
				if gvk != c.GVK {
					continue
				}
				var before, after client.Object
				if c.Old != nil {
					before = c.Old.Typed()
				}
				if c.New != nil {
					after = c.New.Typed()
				}
				l.notify(r, w, before, after)
			}
		}
	}
}

// until lets time pass until a condition holds. Without a limit, it may also end because nothing is left to do.
func (l *lab) until(what string, limit time.Duration, done func() bool) time.Duration {
	l.t.Helper()
	begin := l.clock.Now()
	for n := 0; ; n++ {
		l.deliver()
		if done() {
			return l.clock.Since(begin)
		}
		if n > 20000 {
			l.t.Fatalf("%s: too many reconciles", what)
		}
		var next *running
		var request reconcile.Request
		for _, r := range l.running {
			for _, q := range slices.SortedFunc(maps.Keys(r.due), func(a, b reconcile.Request) int {
				return strings.Compare(a.String(), b.String())
			}) {
				if next == nil || r.due[q].Before(next.due[request]) {
					next, request = r, q
				}
			}
		}
		if next == nil || limit > 0 && next.due[request].Sub(begin) > limit {
			if limit > 0 {
				l.t.Fatalf("%s: not within %s\n%s", what, limit, l.describe())
			}
			return l.clock.Since(begin)
		}
		if due := next.due[request]; due.After(l.clock.Now()) {
			l.clock.SetTime(due)
		}
		delete(next.due, request)
		result, err := l.reconcile(next, request)
		switch {
		case err != nil:
			next.failures[request]++
			if next.failures[request] > 5 {
				l.t.Fatalf("%s %s: %v", next.declared.Name, request, err)
			}
			next.add(request, l.clock.Now().Add(5*time.Millisecond<<next.failures[request]))
		case result.RequeueAfter > 0:
			delete(next.failures, request)
			next.add(request, l.clock.Now().Add(result.RequeueAfter))
		default:
			delete(next.failures, request)
		}
	}
}

func (l *lab) describe() string {
	var b strings.Builder
	for _, h := range l.fleet.Hosts() {
		var n corev1.Node
		if err := l.client.Get(l.ctx, client.ObjectKey{Name: h.Name()}, &n); err != nil {
			fmt.Fprintf(&b, "%s: %v\n", h.Name(), err)
			continue
		}
		fmt.Fprintf(&b, "%s: %v\n%s", n.Name, n.Annotations, h.Status())
	}
	return b.String()
}

func (l *lab) node(name string) *corev1.Node {
	l.t.Helper()
	var n corev1.Node
	if err := l.client.Get(l.ctx, client.ObjectKey{Name: name}, &n); err != nil {
		l.t.Fatal(err)
	}
	return &n
}

// annotate acts for the node controller; an empty value deletes.
func (l *lab) annotate(name string, annotations map[string]string) {
	l.t.Helper()
	n := l.node(name)
	for k, v := range annotations {
		n.Annotations[k] = v
		if v == "" {
			delete(n.Annotations, k)
		}
	}
	if err := l.client.Update(l.ctx, n); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) target(name, config, image string) {
	l.t.Helper()
	l.annotate(name, map[string]string{layering.DesiredConfig: config, layering.DesiredImage: image})
}

// done says whether a node rests at what it was told to run.
func (l *lab) done(name string) func() bool {
	return func() bool {
		var n corev1.Node
		return l.client.Get(l.ctx, client.ObjectKey{Name: name}, &n) == nil && layering.Done(&n) && layering.Ready(&n) == nil
	}
}

// story is the records of one node, without what differs by the second.
func (l *lab) story(name string) []string {
	var lines []string
	for _, r := range l.records {
		if r.Node != name {
			continue
		}
		line := fmt.Sprintf("%s %d", r.Event, r.Boot)
		switch r.Event {
		case "boot", "stage", "rebase":
			line += " base"
			if r.Layered {
				line = strings.TrimSuffix(line, "base") + "layered"
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// installed is a lab with one converged worker at rest.
func installed(t *testing.T, options ...func(*node.FleetOptions)) *lab {
	t.Helper()
	l := newLab(t, options...)
	if err := l.fleet.Install(node.HostSpec{Name: "w1", Roles: []string{"worker"}, Zone: "a", BaseImage: l.base,
		Config: "rendered-worker-1"}); err != nil {
		t.Fatal(err)
	}
	l.start()
	l.until("rest", 0, func() bool { return false })
	if !l.done("w1")() {
		t.Fatalf("the node didn't join:\n%s", l.describe())
	}
	return l
}

// golden compares with a golden file, in which the images' digests have names.
func (l *lab) golden(name, got string) {
	t := l.t
	t.Helper()
	for alias, image := range map[string]string{"BASE": l.base, "LAYERED": l.layered} {
		_, digest, _ := strings.Cut(image, "@sha256:")
		got = strings.ReplaceAll(got, digest, alias)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// The handshake, the order of what is seen of it, and what the machine says of itself at each stage.
func TestUpdate(t *testing.T) {
	l := installed(t)
	h := l.fleet.Host("w1")
	if h.Boots() != 1 {
		t.Fatalf("boots = %d, want 1", h.Boots())
	}
	first := l.node("w1").Status.NodeInfo.BootID
	var seen []string
	l.store.OnChange(func(c *store.Change) {
		if n, ok := c.New.Typed().(*corev1.Node); ok {
			old := c.Old.Typed().(*corev1.Node)
			for _, key := range slices.Sorted(maps.Keys(n.Annotations)) {
				if before, had := old.Annotations[key]; before != n.Annotations[key] || !had {
					seen = append(seen, strings.TrimPrefix(key, layering.Prefix)+"="+n.Annotations[key])
				}
			}
			if was, is := ready(old), ready(n); was != is {
				seen = append(seen, "Ready="+is)
			}
		}
	})
	l.target("w1", "rendered-layered-1", l.layered)
	l.until("staged", time.Hour, func() bool { return len(h.Deployments()) == 2 })
	l.golden("status-staged.txt", h.Status())
	l.golden("status-staged.json", h.StatusJSON())
	l.until("booting", time.Hour, func() bool { return !h.Running(l.clock.Now()) })
	if _, alive := l.fleet.Heartbeat("w1"); alive {
		t.Error("a machine that reboots has a heartbeat")
	}
	took := l.until("update", time.Hour, l.done("w1"))
	if took > 10*time.Minute {
		t.Errorf("the update took %s after the shutdown", took)
	}
	l.until("rest", 0, func() bool { return false })
	want := []string{"desiredConfig=rendered-layered-1", "desiredImage=" + l.layered, "state=Working",
		"desiredDrain=drain-rendered-layered-1", "lastAppliedDrain=drain-rendered-layered-1", "post-config-action=Rebooting",
		"Ready=Unknown Kubelet stopped posting node status.", "Ready=True kubelet is posting ready status",
		"post-config-action=", "desiredDrain=uncordon-rendered-layered-1", "lastAppliedDrain=uncordon-rendered-layered-1",
		"currentConfig=rendered-layered-1", "currentImage=" + l.layered, "state=Done"}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("what was seen (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"boot 1 base", "ready 1", "rebase 1 layered", "stage 1 layered", "shutdown 1", "notready 1",
		"boot 2 layered", "ready 2"}, l.story("w1")); diff != "" {
		t.Errorf("story (-want +got):\n%s", diff)
	}
	n := l.node("w1")
	if n.Status.NodeInfo.BootID == first {
		t.Error("the boot id is that of the first boot")
	}
	if got := n.Status.NodeInfo.OSImage; got != "Red Hat Enterprise Linux CoreOS 418.94.202502100215-0" {
		t.Errorf("osImage = %q", got)
	}
	l.golden("status-layered.txt", h.Status())
	if !strings.Contains(h.PackageList(), "rng-tools-6.17-3.fc41.x86_64\n") {
		t.Errorf("rpm -qa doesn't list rng-tools:\n%s", h.PackageList())
	}
	mcn := l.mcn("w1")
	if !meta.IsStatusConditionTrue(mcn.Status.Conditions, "Updated") || mcn.Status.ConfigVersion.Current != "rendered-layered-1" {
		t.Errorf("machineconfignode: %+v", mcn.Status)
	}

	// Back to the base image: one reboot, and both image annotations go.
	l.records = nil
	l.target("w1", "rendered-worker-1", "")
	l.until("revert", time.Hour, l.done("w1"))
	n = l.node("w1")
	for _, key := range []string{layering.CurrentImage, layering.DesiredImage} {
		if v, ok := n.Annotations[key]; ok {
			t.Errorf("annotation %s=%q is left", key, v)
		}
	}
	if h.Boots() != 3 {
		t.Errorf("boots = %d, want 3", h.Boots())
	}
	l.golden("status-reverted.txt", h.Status())
}

func ready(n *corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return string(c.Status) + " " + c.Message
		}
	}
	return ""
}

func (l *lab) mcn(name string) *mcfgv1.MachineConfigNode {
	l.t.Helper()
	var m mcfgv1.MachineConfigNode
	if err := l.client.Get(l.ctx, client.ObjectKey{Name: name}, &m); err != nil {
		l.t.Fatal(err)
	}
	return &m
}

// A new machine boots twice: into the base image, which joins, and into the layered one once it is targeted.
func TestProvision(t *testing.T) {
	l := newLab(t)
	l.start()
	if err := l.fleet.Provision(node.HostSpec{Name: "w9", Roles: []string{"worker", "layered"}, BaseImage: l.base,
		Config: "rendered-layered-1", Labels: map[string]string{"rack": "7"}}); err != nil {
		t.Fatal(err)
	}
	l.until("join", time.Hour, func() bool {
		var n corev1.Node
		return l.client.Get(l.ctx, client.ObjectKey{Name: "w9"}, &n) == nil && n.Annotations[layering.State] == layering.StateDone
	})
	n := l.node("w9")
	if got := n.Annotations[layering.FirstPivotConfig]; got != "rendered-layered-1" || n.Labels["rack"] != "7" {
		t.Errorf("annotations %v, labels %v", n.Annotations, n.Labels)
	}
	l.target("w9", "rendered-layered-1", l.layered)
	l.until("layered", time.Hour, l.done("w9"))
	want := []string{"rebase 0 base", "stage 0 base", "shutdown 0", "boot 1 base", "ready 1",
		"rebase 1 layered", "stage 1 layered", "shutdown 1", "notready 1", "boot 2 layered", "ready 2"}
	if diff := cmp.Diff(want, l.story("w9")); diff != "" {
		t.Errorf("story (-want +got):\n%s", diff)
	}
	if len(l.fleet.Host("w9").Deployments()) != 2 {
		t.Errorf("deployments: %+v", l.fleet.Host("w9").Deployments())
	}
}

// A node that may not pull degrades, stays cordoned, and heals by itself within a minute and the time of a rebase.
func TestPullErrors(t *testing.T) {
	tests := map[string]struct {
		image  func(*lab) string
		breaks func(*lab)
		repair func(*lab)
		reason string
	}{
		"unauthorized": {breaks: func(l *lab) { l.nodeSecret("old") }, repair: func(l *lab) { l.nodeSecret("one") },
			reason: "unauthorized: authentication required: exit status 1"},
		"denied": {breaks: func(l *lab) { l.account("nothing") }, repair: func(l *lab) { l.account("*") },
			reason: "denied: "},
		"manifest unknown": {image: func(l *lab) string { return layeredRepo + "@sha256:" + strings.Repeat("1", 64) },
			reason: "manifest unknown: exit status 1"},
		"unknown host": {image: func(*lab) string { return "registry.example.com/os@sha256:" + strings.Repeat("1", 64) },
			reason: "no such host"},
		"injected": {breaks: func(l *lab) { l.faults["pull"] = errors.New("connection reset by peer") },
			repair: func(l *lab) { delete(l.faults, "pull") }, reason: "connection reset by peer"},
		"stage": {breaks: func(l *lab) { l.faults["stage"] = errors.New("no space left on device") },
			repair: func(l *lab) { delete(l.faults, "stage") }, reason: "no space left on device"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := installed(t)
			image := l.layered
			if test.image != nil {
				image = test.image(l)
			}
			if test.breaks != nil {
				test.breaks(l)
			}
			l.target("w1", "rendered-layered-1", image)
			var n *corev1.Node
			l.until("degrade", time.Hour, func() bool {
				n = l.node("w1")
				return n.Annotations[layering.State] == layering.StateDegraded
			})
			reason := n.Annotations[layering.Reason]
			for _, part := range []string{"failed to update OS to " + image + " after retries: error running rpm-ostree rebase " +
				"--experimental ostree-unverified-registry:" + image + ": error: ", test.reason} {
				if !strings.Contains(reason, part) {
					t.Errorf("reason %q doesn't contain %q", reason, part)
				}
			}
			if strings.Contains(reason, "old") {
				t.Errorf("reason %q tells a secret", reason)
			}
			if !n.Spec.Unschedulable || n.Annotations[layering.CurrentConfig] != "rendered-worker-1" {
				t.Errorf("schedulable, or annotations moved: %v", n.Annotations)
			}
			if !meta.IsStatusConditionTrue(l.mcn("w1").Status.Conditions, "NodeDegraded") {
				t.Error("machineconfignode is not NodeDegraded")
			}
			if test.repair == nil {
				l.target("w1", "rendered-worker-1", "")
				l.until("take back", 2*time.Minute, l.done("w1"))
				if boots := l.fleet.Host("w1").Boots(); boots != 1 {
					t.Errorf("boots = %d, want 1", boots)
				}
				return
			}
			l.until("retries", 0, func() bool { return l.clock.Since(start) > time.Hour })
			test.repair(l)
			l.until("stage", 4*time.Minute, func() bool { return l.node("w1").Annotations[layering.PostConfigAction] != "" })
			if state := l.node("w1").Annotations[layering.State]; state != layering.StateDegraded {
				t.Errorf("state = %s while the retry works, want Degraded", state)
			}
			l.until("done", time.Hour, l.done("w1"))
			if boots := l.fleet.Host("w1").Boots(); boots != 2 {
				t.Errorf("boots = %d, want 2", boots)
			}
			if meta.IsStatusConditionTrue(l.mcn("w1").Status.Conditions, "NodeDegraded") {
				t.Error("machineconfignode is still NodeDegraded")
			}
		})
	}
}

func (l *lab) account(pull string) {
	l.registry.SetAccount(registry.Account{Name: "puller", Password: "one", Pull: []string{pull}})
}

func TestDrift(t *testing.T) {
	l := installed(t)
	h := l.fleet.Host("w1")
	content, ok := h.ReadFile("/etc/motd")
	if !ok || content != "worker\n" {
		t.Fatalf("/etc/motd = %q, %t", content, ok)
	}
	h.WriteFile("/etc/unmanaged", "x")
	h.WriteFile("/etc/motd", "by hand\n")
	l.until("degrade", time.Minute, func() bool { return l.node("w1").Annotations[layering.State] == layering.StateDegraded })
	want := `unexpected on-disk state validating against rendered-worker-1: content mismatch for file "/etc/motd"`
	if got := l.node("w1").Annotations[layering.Reason]; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
	var warned bool
	for len(l.events.Events) > 0 {
		warned = warned || strings.HasPrefix(<-l.events.Events, "Warning ConfigDriftDetected")
	}
	if !warned {
		t.Error("no event ConfigDriftDetected")
	}
	l.target("w1", "rendered-layered-1", l.layered) // the preflight check keeps it from the update
	l.until("retries", 0, func() bool { return l.clock.Since(start) > time.Hour })
	if h.Boots() != 1 || len(h.Deployments()) != 1 {
		t.Errorf("a node that drifted was updated:\n%s", h.Status())
	}
	l.target("w1", "rendered-worker-1", "")
	h.RestoreFile("/etc/motd")
	l.until("heal", 90*time.Second, l.done("w1"))
	if h.Boots() != 1 {
		t.Errorf("boots = %d, want 1", h.Boots())
	}
}

// What a change of files costs.
func TestFilesOnly(t *testing.T) {
	for name, test := range map[string]struct {
		from, to string
		live     bool
		boots    int
	}{
		"files reboot":  {"rendered-layered-1", "rendered-layered-2", false, 2},
		"live files":    {"rendered-layered-1", "rendered-layered-2", true, 1},
		"only the name": {"rendered-worker-1", "rendered-layered-1", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(o *node.FleetOptions) { o.LiveFiles = test.live })
			if err := l.fleet.Install(node.HostSpec{Name: "w1", BaseImage: l.base, Config: test.from}); err != nil {
				t.Fatal(err)
			}
			l.start()
			l.until("join", time.Minute, l.done("w1"))
			l.target("w1", test.to, "")
			l.until("update", time.Hour, l.done("w1"))
			h := l.fleet.Host("w1")
			if h.Boots() != test.boots || len(h.Deployments()) != 1 {
				t.Errorf("boots = %d, want %d\n%s", h.Boots(), test.boots, h.Status())
			}
			if drained := l.node("w1").Annotations[layering.LastAppliedDrain]; drained != "uncordon-"+test.to {
				t.Errorf("lastAppliedDrain = %q", drained)
			}
		})
	}
}

// A target that changes while a node reboots is taken up right away, without an uncordon in between.
func TestRetarget(t *testing.T) {
	l := installed(t)
	l.target("w1", "rendered-layered-1", l.layered)
	l.until("reboot", time.Hour, func() bool { return l.node("w1").Annotations[layering.PostConfigAction] != "" })
	l.target("w1", "rendered-layered-2", l.layered)
	l.until("second boot", time.Hour, func() bool {
		n := l.node("w1")
		if strings.HasPrefix(n.Annotations[layering.DesiredDrain], "uncordon-rendered-layered-1") || n.Annotations[layering.CurrentImage] != "" {
			t.Fatalf("uncordoned between two updates: %v", n.Annotations)
		}
		return l.fleet.Host("w1").Boots() == 3
	})
	l.until("done", time.Hour, l.done("w1"))
}

// A target that changes while its predecessor is at work waits: the daemon finishes what it began.
func TestFinishFirst(t *testing.T) {
	l := installed(t)
	h := l.fleet.Host("w1")
	l.target("w1", "rendered-layered-1", l.layered)
	l.until("rebase", time.Hour, func() bool { return strings.HasPrefix(h.Status(), "State: busy") })
	l.target("w1", "rendered-layered-2", l.layered)
	l.until("reboot", time.Hour, func() bool { return l.node("w1").Annotations[layering.PostConfigAction] != "" })
	if content, _ := h.ReadFile("/etc/motd"); content != "worker\n" {
		t.Errorf("/etc/motd = %q, want that of rendered-layered-1", content)
	}
	l.until("done", time.Hour, l.done("w1"))
	if content, _ := h.ReadFile("/etc/motd"); content != "changed\n" || h.Boots() != 3 {
		t.Errorf("/etc/motd = %q after %d boots, want that of rendered-layered-2 after 3", content, h.Boots())
	}
}

func TestDrainTimeout(t *testing.T) {
	l := installed(t)
	l.drain = false
	l.target("w1", "rendered-layered-1", l.layered)
	took := l.until("degrade", 2*time.Hour, func() bool { return l.node("w1").Annotations[layering.State] == layering.StateDegraded })
	if took < time.Hour || !strings.HasPrefix(l.node("w1").Annotations[layering.Reason], "failed to drain node: w1 after 1 hour") {
		t.Errorf("after %s: %v", took, l.node("w1").Annotations)
	}
	l.drain = true
	l.annotate("w1", map[string]string{"poke": "1"})
	l.until("done", time.Hour, l.done("w1"))
}

// A machine that hangs in its boot, and one that loses its power, come back when they are let.
func TestHang(t *testing.T) {
	l := installed(t)
	l.faults["boot"] = errors.New("waiting for a disk")
	l.target("w1", "rendered-layered-1", l.layered)
	l.until("unknown", time.Hour, func() bool { return strings.HasPrefix(ready(l.node("w1")), "Unknown") })
	l.until("hang", 0, func() bool { return l.clock.Since(start) > 3*time.Hour })
	if l.fleet.Host("w1").Running(l.clock.Now()) {
		t.Error("it boots in spite of the fault")
	}
	delete(l.faults, "boot")
	l.until("done", time.Hour, l.done("w1"))

	for _, phase := range []string{"drain", "pull", "stage", "reboot", "uncordon", "done"} {
		l.faults[phase] = fmt.Errorf("fault: %w", node.ErrHang)
	}
	l.target("w1", "rendered-layered-2", "")
	for _, phase := range []string{"drain", "pull", "stage", "reboot", "uncordon", "done"} {
		begin := l.clock.Now()
		l.until(phase+" hangs", 0, func() bool { return l.clock.Since(begin) > 2*time.Hour })
		if n := l.node("w1"); n.Annotations[layering.State] != layering.StateWorking {
			t.Errorf("%s hangs: %v", phase, n.Annotations)
		}
		delete(l.faults, phase)
	}
	l.until("done", time.Hour, l.done("w1"))

	l.fleet.PowerOff("w1")
	l.until("dark", time.Hour, func() bool { return strings.HasPrefix(ready(l.node("w1")), "Unknown") })
	l.fleet.PowerOn("w1")
	l.until("back", time.Hour, l.done("w1"))
	if boots := l.fleet.Host("w1").Boots(); boots != 4 {
		t.Errorf("boots = %d, want 4", boots)
	}
}

// Agents that crash after each of their writes end where others end, with the same number of boots and writes of Done.
func TestCrashes(t *testing.T) {
	l := newLab(t)
	l.start()
	l.crashes = true
	if err := l.fleet.Provision(node.HostSpec{Name: "w1", Roles: []string{"worker"}, BaseImage: l.base, Config: "rendered-worker-1"}); err != nil {
		t.Fatal(err)
	}
	l.until("join", time.Hour, l.done("w1"))
	l.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web"}, Spec: corev1.PodSpec{NodeName: "w1",
		Containers: []corev1.Container{{Name: "web", Image: "quay.io/web/web:1"}}}})
	l.target("w1", "rendered-layered-1", l.layered)
	l.until("layered", time.Hour, l.done("w1"))
	l.target("w1", "rendered-worker-1", "")
	l.until("base", time.Hour, l.done("w1"))
	l.until("rest", 0, func() bool { return false })
	if boots := l.fleet.Host("w1").Boots(); boots != 3 {
		t.Errorf("boots = %d, want 3", boots)
	}
	if l.crashed < 20 {
		t.Errorf("only %d crashes", l.crashed)
	}
	if n := l.node("w1"); n.Spec.Unschedulable || n.Annotations[layering.PostConfigAction] != "" {
		t.Errorf("at rest: %+v, %v", n.Spec, n.Annotations)
	}
}

// crash is what a crash test panics with.
type crash struct{}

// crashing is a client whose caller ends after each write that succeeded.
type crashing struct {
	client.Client
	on *lab
}

func (c crashing) after(err error) error {
	if revision := c.on.store.Revision(); err == nil && c.on.crashes && revision > c.on.crashedAt {
		c.on.crashedAt = revision // a write that changes nothing must not crash the same reconcile for ever
		panic(crash{})
	}
	return err
}

func (c crashing) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	return c.after(c.Client.Create(ctx, o, opts...))
}

func (c crashing) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	return c.after(c.Client.Patch(ctx, o, p, opts...))
}

func (c crashing) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	return c.after(c.Client.Delete(ctx, o, opts...))
}

func (c crashing) Status() client.SubResourceWriter { return crashingStatus{c.Client.Status(), c} }

type crashingStatus struct {
	client.SubResourceWriter
	c crashing
}

func (s crashingStatus) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
	return s.c.after(s.SubResourceWriter.Patch(ctx, o, p, opts...))
}

// reconcile runs one reconcile. A crash restarts all components.
func (l *lab) reconcile(r *running, q reconcile.Request) (result reconcile.Result, err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case crash{}:
			l.crashed++
			if l.restart != nil {
				l.restart()
			} else {
				l.start()
			}
		default:
			panic(p)
		}
	}()
	return r.r.Reconcile(l.ctx, q)
}

// Two reboots for a revert, as upstream's main needs them.
func TestRevertReboots(t *testing.T) {
	l := installed(t, func(o *node.FleetOptions) { o.RevertReboots = 2 })
	l.target("w1", "rendered-layered-1", l.layered)
	l.until("layered", time.Hour, l.done("w1"))
	l.target("w1", "rendered-worker-1", "")
	l.until("base", time.Hour, l.done("w1"))
	if boots := l.fleet.Host("w1").Boots(); boots != 4 {
		t.Errorf("boots = %d, want 4", boots)
	}
}

func TestPods(t *testing.T) {
	l := installed(t)
	pod := func(name, container string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name}, Spec: corev1.PodSpec{NodeName: "w1",
			Containers: []corev1.Container{{Name: container, Image: "quay.io/web/web:1"}}}}
	}
	l.create(pod("web", "web"))
	l.create(pod("short", "web"))
	l.create(pod("build", "image-build"))
	get := func(name string) (p corev1.Pod, err error) {
		err = l.client.Get(l.ctx, client.ObjectKey{Namespace: "apps", Name: name}, &p)
		return p, err
	}
	took := l.until("running", time.Minute, func() bool {
		p, err := get("web")
		return err == nil && p.Status.Phase == corev1.PodRunning
	})
	if took == 0 {
		t.Error("a pod runs at once")
	}
	l.until("rest", 0, func() bool { return false })
	if p, _ := get("build"); p.Status.Phase == corev1.PodRunning {
		t.Error("the kubelet runs a build pod")
	}
	if err := l.client.Delete(l.ctx, pod("short", "web")); err != nil {
		t.Fatal(err)
	}
	if _, err := get("short"); err != nil {
		t.Errorf("a deleted pod is gone before its kubelet knows: %v", err)
	}
	if took := l.until("gone", time.Minute, func() bool { _, err := get("short"); return err != nil }); took != 2*time.Second {
		t.Errorf("gone after %s, want 2 s", took)
	}
	l.fleet.Host("w1").Reboot("by hand")
	l.until("restart", time.Hour, func() bool {
		p, err := get("web")
		return err == nil && p.Status.ContainerStatuses[0].RestartCount == 1
	})
}
