package node_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/controllers/node"
	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/store"
)

const (
	configA = "rendered-layered-a"
	configB = "rendered-layered-b"
)

func image(n int) string {
	return fmt.Sprintf("registry.example.com/ocl/layered@sha256:%064d", n)
}

// view is a cache that lags as far as a test says. A nil view never lags.
type view struct {
	random *rand.Rand
	store  *store.Store
	seen   map[schema.GroupVersionKind]int64
}

func (v *view) Revision(gvk schema.GroupVersionKind) int64 {
	newest := v.store.Revision()
	if v.random != nil && v.random.IntN(4) > 0 { // sometimes nothing arrives, sometimes part of what happened
		newest = v.seen[gvk] + v.random.Int64N(newest-v.seen[gvk]+1)
	}
	if v.random != nil && v.seen[gvk] == 0 {
		newest = v.store.Revision() // listed at the start
	}
	v.seen[gvk] = max(v.seen[gvk], newest)
	return v.seen[gvk]
}

// cluster is an API server with pools worker and layered, and a node controller.
type cluster struct {
	*testing.T
	store      *store.Store
	client     client.Client // the test's
	view       *view
	clock      *clocktesting.FakePassiveClock
	events     *events.FakeRecorder
	before     func(*store.Request) error // of the controller's requests
	reconciler reconcile.Reconciler
}

func newCluster(t *testing.T, lag *rand.Rand) *cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcfgv1.Install, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, 8, 20, 10, 0, 0, 0, time.UTC))
	c := &cluster{T: t, clock: clock, store: store.New(store.Options{Clock: clock, Scheme: scheme}),
		events: events.NewFakeRecorder(1000)}
	c.client = c.store.Client(store.ClientOptions{Author: "test"})
	crds, err := fixtures.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range crds {
		if strings.HasPrefix(crd.Name, "machineconfigpools.") || strings.HasPrefix(crd.Name, "machineos") ||
			strings.HasPrefix(crd.Name, "controllerconfigs.") {
			c.create(crd.DeepCopy())
		}
	}
	for _, name := range []string{"worker", "layered"} {
		pool := &mcfgv1.MachineConfigPool{ObjectMeta: metav1.ObjectMeta{Name: name}}
		pool.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{layering.NodeRolePrefix + name: ""}}
		pool.Spec.Configuration.Name = "rendered-" + name + "-a"
		c.create(pool)
	}
	c.restart(lag)
	return c
}

// restart starts the controller with empty memory and a new view.
func (c *cluster) restart(lag *rand.Rand) {
	c.Helper()
	before := func(r *store.Request) error {
		if c.before != nil {
			return c.before(r)
		}
		return nil
	}
	c.view = &view{random: lag, store: c.store, seen: map[schema.GroupVersionKind]int64{}}
	r, err := node.New(node.Options{}).New(component.Env{
		Client:   c.store.Client(store.ClientOptions{Author: node.Name, View: c.view, Before: before}),
		Live:     c.store.Client(store.ClientOptions{Author: node.Name, Before: before}),
		Clock:    c.clock,
		Recorder: c.events,
	})
	if err != nil {
		c.Fatal(err)
	}
	c.reconciler = r
}

func (c *cluster) create(o client.Object) {
	c.Helper()
	if err := c.client.Create(context.Background(), o); err != nil {
		c.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

func (c *cluster) node(name string, labels ...string) *corev1.Node {
	c.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{},
		Annotations: map[string]string{layering.CurrentConfig: configA, layering.DesiredConfig: configA, layering.State: "Done"}}}
	for _, l := range labels {
		n.Labels[layering.NodeRolePrefix+l] = ""
	}
	c.create(n)
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if err := c.client.Status().Update(context.Background(), n); err != nil {
		c.Fatal(err)
	}
	return n
}

func (c *cluster) sync(pool string) error {
	_, err := c.reconciler.Reconcile(context.Background(), reconcile.Request{NamespacedName: types.NamespacedName{Name: pool}})
	return err
}

func (c *cluster) mustSync(pool string) {
	c.Helper()
	if err := c.sync(pool); err != nil {
		c.Fatalf("sync %s: %v", pool, err)
	}
}

// change reads an object, changes it and writes it back, its status or the rest.
func change[T client.Object](c *cluster, o T, name string, status bool, fn func(T)) {
	c.Helper()
	ctx := context.Background()
	if err := c.client.Get(ctx, client.ObjectKey{Name: name}, o); err != nil {
		c.Fatal(err)
	}
	fn(o)
	var err error
	if status {
		err = c.client.Status().Update(ctx, o)
	} else {
		err = c.client.Update(ctx, o)
	}
	if err != nil {
		c.Fatalf("update %T %s: %v", o, name, err)
	}
}

func (c *cluster) pool(name string) *mcfgv1.MachineConfigPool {
	c.Helper()
	p := &mcfgv1.MachineConfigPool{}
	if err := c.client.Get(context.Background(), client.ObjectKey{Name: name}, p); err != nil {
		c.Fatal(err)
	}
	return p
}

func (c *cluster) nodes() []corev1.Node {
	c.Helper()
	list := &corev1.NodeList{}
	if err := c.client.List(context.Background(), list); err != nil {
		c.Fatal(err)
	}
	return list.Items
}

// layer makes pool layered; the image number n is there at once if n isn't 0.
func (c *cluster) layer(config string, n int) {
	c.Helper()
	osc := &mcfgv1.MachineOSConfig{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}
	osc.Spec = mcfgv1.MachineOSConfigSpec{
		MachineConfigPool:       mcfgv1.MachineConfigPoolReference{Name: "layered"},
		ImageBuilder:            mcfgv1.MachineOSImageBuilder{ImageBuilderType: mcfgv1.JobBuilder},
		RenderedImagePushSecret: mcfgv1.ImageSecretObjectReference{Name: "push"},
		RenderedImagePushSpec:   "registry.example.com/ocl/layered:latest",
		Containerfile:           []mcfgv1.MachineOSContainerfile{{ContainerfileArch: mcfgv1.NoArch, Content: "FROM configs AS final"}},
	}
	c.create(osc)
	if n > 0 {
		c.built(config, n)
	}
}

// built adds a Succeeded build of image n for a config, and lets the MachineOSConfig point to it.
func (c *cluster) built(config string, n int) {
	c.Helper()
	b := &mcfgv1.MachineOSBuild{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("layered-%d", n)}}
	b.Spec = mcfgv1.MachineOSBuildSpec{
		MachineConfig:         mcfgv1.MachineConfigReference{Name: config},
		MachineOSConfig:       mcfgv1.MachineOSConfigReference{Name: "layered"},
		RenderedImagePushSpec: mcfgv1.ImageTagFormat("registry.example.com/ocl/layered:" + b.Name),
	}
	c.create(b)
	now := metav1.NewTime(c.clock.Now())
	for _, kind := range []string{"Prepared", "Building", "Failed", "Interrupted", "Succeeded"} {
		status := metav1.ConditionFalse
		if kind == "Succeeded" {
			status = metav1.ConditionTrue
		}
		b.Status.Conditions = append(b.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: "Ready",
			LastTransitionTime: now})
	}
	b.Status.DigestedImagePushSpec = mcfgv1.ImageDigestFormat(image(n))
	end := metav1.NewTime(now.Add(time.Minute))
	b.Status.BuildStart, b.Status.BuildEnd = &now, &end
	if err := c.client.Status().Update(context.Background(), b); err != nil {
		c.Fatal(err)
	}
	change(c, &mcfgv1.MachineOSConfig{}, "layered", false, func(o *mcfgv1.MachineOSConfig) {
		metav1.SetMetaDataAnnotation(&o.ObjectMeta, layering.CurrentBuild, b.Name)
	})
	change(c, &mcfgv1.MachineOSConfig{}, "layered", true, func(o *mcfgv1.MachineOSConfig) {
		o.Status.ObservedGeneration = 1
		o.Status.CurrentImagePullSpec = mcfgv1.ImageDigestFormat(image(n))
	})
}

// step lets a node's daemon, whose memory is the node itself, do one thing. It tells whether there was something to do.
func (c *cluster) step(n corev1.Node) bool {
	c.Helper()
	if layering.Done(&n) {
		return false
	}
	change(c, &corev1.Node{}, n.Name, false, func(n *corev1.Node) {
		switch {
		case n.Annotations[layering.State] == "Done":
			n.Annotations[layering.State] = "Working"
		case !n.Spec.Unschedulable && layering.Current(n) != layering.Desired(n):
			n.Spec.Unschedulable = true
		case n.Spec.Unschedulable:
			n.Spec.Unschedulable = false
			n.Annotations["test/did"] = n.Annotations[layering.DesiredConfig] + " " + n.Annotations[layering.DesiredImage]
			config, image, _ := strings.Cut(n.Annotations["test/did"], " ")
			n.Annotations[layering.CurrentConfig], n.Annotations[layering.State] = config, "Done"
			delete(n.Annotations, layering.CurrentImage)
			if image != "" {
				n.Annotations[layering.CurrentImage] = image
			}
		default:
			n.Annotations[layering.State] = "Done"
		}
	})
	return true
}

// TestRolloutUnderLag rolls out, opts in, moves to a new image, and opts out, with caches that lag at random and nodes
// that act at random, and judges each revision: no more than maxUnavailable nodes are out, each target is one that
// belongs together, and in the end all nodes are where they should be.
func TestRolloutUnderLag(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			c := newCluster(t, random)
			limit := 1 + int(seed%3)
			change(c, &mcfgv1.MachineConfigPool{}, "layered", false, func(p *mcfgv1.MachineConfigPool) {
				v := intstr.FromInt(limit)
				p.Spec.MaxUnavailable = &v
			})
			for i := range 6 {
				c.node(fmt.Sprintf("node-%d", i), "worker", "layered")
			}
			allowed := map[layering.Target]bool{{Config: configA}: true}
			states := map[string]*corev1.Node{}
			for i, n := range c.nodes() {
				states[n.Name] = &c.nodes()[i]
			}
			c.store.OnChange(func(change *store.Change) {
				if change.GVK.Kind != "Node" {
					return
				}
				n := change.New.Typed().(*corev1.Node)
				old := states[n.Name]
				states[n.Name] = n
				if layering.Desired(old) == layering.Desired(n) {
					return // people may cordon as many nodes as they like
				}
				if !allowed[layering.Desired(n)] {
					t.Errorf("revision %d: %s was told %s", change.Revision, n.Name, layering.Desired(n))
				}
				out := 0
				for _, name := range slices.Sorted(maps.Keys(states)) {
					if !layering.Available(states[name]) {
						out++
					}
				}
				if out > limit {
					t.Errorf("revision %d by %s: %d nodes are unavailable, %d may be", change.Revision, change.Author, out, limit)
				}
			})
			run := func(want layering.Target) {
				t.Helper()
				for range 3000 {
					switch random.IntN(10) {
					case 0:
						c.restart(random)
					case 1, 2, 3:
						if err := c.sync("layered"); err != nil && !apierrors.IsConflict(err) {
							t.Fatal(err)
						}
					case 4: // somebody cordons a node that is at rest, and later lets it go
						nodes := c.nodes()
						held := slices.IndexFunc(nodes, func(n corev1.Node) bool { return layering.Done(&n) && n.Spec.Unschedulable })
						at := held
						if held < 0 {
							at = random.IntN(len(nodes))
						}
						if layering.Done(&nodes[at]) {
							change(c, &corev1.Node{}, nodes[at].Name, false, func(n *corev1.Node) { n.Spec.Unschedulable = held < 0 })
						}
					default:
						nodes := c.nodes()
						c.step(nodes[random.IntN(len(nodes))])
					}
					done := 0
					for _, n := range c.nodes() {
						if layering.Updated(&n, want) && layering.Ready(&n) == nil {
							done++
						}
					}
					if done == 6 {
						return
					}
				}
				t.Fatalf("didn't arrive at %s", want)
			}
			only := func(target layering.Target) layering.Target { clear(allowed); allowed[target] = true; return target }

			c.layer(configA, 0)
			c.mustSync("layered")
			run(layering.Target{Config: configA}) // nothing to do yet
			target := only(layering.Target{Config: configA, Image: image(1)})
			c.built(configA, 1)
			run(target)
			// A new config without a build: nodes stay. Then its build comes.
			change(c, &mcfgv1.MachineConfigPool{}, "layered", false, func(p *mcfgv1.MachineConfigPool) {
				p.Spec.Configuration.Name = configB
			})
			for range 20 {
				if err := c.sync("layered"); err != nil && !apierrors.IsConflict(err) {
					t.Fatal(err)
				}
			}
			target = only(layering.Target{Config: configB, Image: image(2)})
			c.built(configB, 2)
			run(target)
			if err := c.client.Delete(context.Background(), &mcfgv1.MachineOSConfig{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}); err != nil {
				t.Fatal(err)
			}
			run(only(layering.Target{Config: configB}))
			c.restart(nil)
			c.mustSync("layered")
			c.mustSync("layered")
			if p := c.pool("layered"); p.Status.UpdatedMachineCount != 6 || p.Status.Configuration.Name != configB {
				t.Errorf("in the end: %+v", p.Status)
			}
			for _, n := range c.nodes() {
				if len(n.Spec.Taints) > 0 {
					t.Errorf("in the end %s has taints %v", n.Name, n.Spec.Taints)
				}
			}
		})
	}
}

// TestTargetIsOneWrite: config and image change in one revision, and the events say so.
func TestTargetIsOneWrite(t *testing.T) {
	c := newCluster(t, nil)
	c.node("n0", "layered")
	change(c, &mcfgv1.MachineConfigPool{}, "layered", false, func(p *mcfgv1.MachineConfigPool) { p.Spec.Configuration.Name = configB })
	c.layer(configB, 1)
	var told []layering.Target
	c.store.OnChange(func(change *store.Change) {
		if change.GVK.Kind != "Node" {
			return
		}
		if n := change.New.Typed().(*corev1.Node); layering.Desired(n) != layering.Desired(change.Old.Typed().(*corev1.Node)) {
			told = append(told, layering.Desired(n))
		}
	})
	c.mustSync("layered")
	if len(told) != 1 || told[0] != (layering.Target{Config: configB, Image: image(1)}) {
		t.Errorf("node was told %v", told)
	}
	want := "Normal SetDesiredConfigAndOSImage Targeted node n0 to MachineConfig: " + configB + " / Image: " + image(1)
	if got := <-c.events.Events; got != want {
		t.Errorf("event %q, want %q", got, want)
	}
	if got := c.pool("layered").Status.UnavailableMachineCount; got != 1 {
		t.Errorf("unavailableMachineCount = %d right after targeting, want 1", got)
	}
}

// TestPaused: a paused pool gets its status and nothing else, even when its MachineOSConfig is replaced.
func TestPaused(t *testing.T) {
	c := newCluster(t, nil)
	n := c.node("n0", "layered")
	c.layer(configA, 1)
	c.mustSync("layered")
	for c.step(c.nodes()[0]) {
	}
	c.mustSync("layered")
	if p := c.pool("layered"); p.Status.UpdatedMachineCount != 1 {
		t.Fatalf("not rolled out: %+v", p.Status)
	}
	change(c, &mcfgv1.MachineConfigPool{}, "layered", false, func(p *mcfgv1.MachineConfigPool) { p.Spec.Paused = true })
	c.mustSync("layered")
	before := c.nodes()[0].ResourceVersion
	if err := c.client.Delete(context.Background(), &mcfgv1.MachineOSConfig{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}); err != nil {
		t.Fatal(err)
	}
	c.mustSync("layered")
	c.layer(configA, 2)
	c.mustSync("layered")
	if after := c.nodes()[0].ResourceVersion; after != before {
		t.Errorf("node was written while its pool was paused: %+v", c.nodes()[0].Annotations)
	}
	p := c.pool("layered")
	for _, kind := range []mcfgv1.MachineConfigPoolConditionType{"Updated", "Updating", "Degraded"} {
		if layering.PoolConditionTrue(p.Status.Conditions, kind) {
			t.Errorf("%s is True, want three False", kind)
		}
	}
	if p.Status.ReadyMachineCount != 0 || p.Status.UpdatedMachineCount != 0 || p.Status.MachineCount != 1 {
		t.Errorf("counts %+v, want 1 0 0", p.Status)
	}
	change(c, &mcfgv1.MachineConfigPool{}, "layered", false, func(p *mcfgv1.MachineConfigPool) { p.Spec.Paused = false })
	c.mustSync("layered")
	if got := c.nodes()[0].Annotations[layering.DesiredImage]; got != image(2) {
		t.Errorf("unpaused: %s was told %q, want %q", n.Name, got, image(2))
	}
}

// TestStatusIsWrittenOnce: a sync that changes nothing writes nothing.
func TestStatusIsWrittenOnce(t *testing.T) {
	c := newCluster(t, nil)
	c.node("n0", "layered")
	c.node("n1", "worker")
	c.layer(configA, 0)
	for range 2 {
		c.mustSync("layered")
		c.mustSync("worker")
		c.clock.SetTime(c.clock.Now().Add(time.Minute))
	}
	before := c.store.Revision()
	c.mustSync("layered")
	c.mustSync("worker")
	if after := c.store.Revision(); after != before {
		t.Errorf("%d writes by syncs with nothing to do", after-before)
	}
}

// TestOthersConditionsSurvive: a condition that another controller writes at the very moment isn't lost.
func TestOthersConditionsSurvive(t *testing.T) {
	c := newCluster(t, nil)
	c.node("n0", "layered")
	wrote := false
	c.before = func(r *store.Request) error {
		if r.Verb == "update" && r.Subresource == "status" && !wrote {
			wrote = true
			change(c, &mcfgv1.MachineConfigPool{}, "layered", true, func(p *mcfgv1.MachineConfigPool) {
				layering.SetPoolCondition(&p.Status.Conditions, mcfgv1.MachineConfigPoolCondition{
					Type: mcfgv1.MachineConfigPoolRenderDegraded, Status: corev1.ConditionTrue, Message: "broken"}, c.clock.Now())
			})
		}
		return nil
	}
	if err := c.sync("layered"); !apierrors.IsConflict(err) {
		t.Fatalf("sync: %v, want a conflict", err)
	}
	c.mustSync("layered")
	p := c.pool("layered")
	if !layering.PoolConditionTrue(p.Status.Conditions, "RenderDegraded") || !layering.PoolConditionTrue(p.Status.Conditions, "Degraded") {
		t.Errorf("conditions: %+v", p.Status.Conditions)
	}
}

// TestTwoCustomPools: a node in two custom pools is nobody's, is warned about once, and heals.
func TestTwoCustomPools(t *testing.T) {
	c := newCluster(t, nil)
	infra := &mcfgv1.MachineConfigPool{ObjectMeta: metav1.ObjectMeta{Name: "infra"}}
	infra.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{layering.NodeRolePrefix + "infra": ""}}
	infra.Spec.Configuration.Name = "rendered-infra-a"
	c.create(infra)
	c.node("n0", "worker", "layered", "infra")
	all := func() {
		for _, p := range []string{"infra", "layered", "worker"} {
			c.mustSync(p)
		}
	}
	all()
	all()
	for _, p := range []string{"infra", "layered", "worker"} {
		if n := c.pool(p).Status.MachineCount; n != 0 {
			t.Errorf("pool %s counts %d nodes, want 0", p, n)
		}
	}
	var warnings []string
	for range len(c.events.Events) {
		if e := <-c.events.Events; strings.HasPrefix(e, "Warning") {
			warnings = append(warnings, e)
		}
	}
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "Warning MultipleCustomPools node n0 belongs to 2 custom roles") {
		t.Errorf("warnings %q, want one about node n0", warnings)
	}
	change(c, &corev1.Node{}, "n0", false, func(n *corev1.Node) { delete(n.Labels, layering.NodeRolePrefix+"infra") })
	all()
	if n := c.pool("layered").Status.MachineCount; n != 1 {
		t.Errorf("pool layered counts %d nodes after the label went, want 1", n)
	}
}

// TestWatches: which changes of which objects lead to which pools.
func TestWatches(t *testing.T) {
	c := newCluster(t, nil)
	declared := node.New(node.Options{})
	requests := func(before, after client.Object) string {
		found := map[string]bool{}
		for _, w := range declared.Watches {
			o := after
			if o == nil {
				o = before
			}
			if fmt.Sprintf("%T", w.Object) != fmt.Sprintf("%T", o) || w.When != nil && !w.When(before, after) {
				continue
			}
			for _, o := range []client.Object{before, after} {
				if o == nil {
					continue
				}
				if w.Map == nil {
					found[o.GetName()] = true
					continue
				}
				for _, r := range w.Map(context.Background(), c.client, o) {
					found[r.Name] = true
				}
			}
		}
		return strings.Join(slices.Sorted(maps.Keys(found)), " ")
	}
	n := c.node("n0", "worker", "layered")
	touch := func(fn func(*corev1.Node)) client.Object {
		m := n.DeepCopy()
		fn(m)
		return m
	}
	pool := c.pool("layered")
	for _, tt := range []struct {
		name          string
		before, after client.Object
		want          string
	}{
		{"node comes", nil, n, "layered worker"},
		{"node goes", n, nil, "layered worker"},
		{"heartbeat", n, touch(func(n *corev1.Node) { n.Status.Conditions[0].LastHeartbeatTime = metav1.Unix(9, 0) }), ""},
		{"not ready", n, touch(func(n *corev1.Node) { n.Status.Conditions[0].Status = "Unknown" }), "layered worker"},
		{"cordoned", n, touch(func(n *corev1.Node) { n.Spec.Unschedulable = true }), "layered worker"},
		{"drain requested", n, touch(func(n *corev1.Node) { n.Annotations[layering.DesiredDrain] = "drain-x" }), ""},
		{"state", n, touch(func(n *corev1.Node) { n.Annotations[layering.State] = "Working" }), "layered worker"},
		{"leaves all pools", n, touch(func(n *corev1.Node) { n.Labels = nil }), "layered worker"},
		{"pool's own status", pool, func() client.Object {
			p := pool.DeepCopy()
			p.Status.MachineCount = 5
			return p
		}(), ""},
		{"pool's ImageBuildDegraded", pool, func() client.Object {
			p := pool.DeepCopy()
			p.Status.Conditions = []mcfgv1.MachineConfigPoolCondition{{Type: "ImageBuildDegraded", Status: "True"}}
			return p
		}(), "layered"},
		{"pool goes", pool, nil, "layered worker"},
		{"build without label", nil, &mcfgv1.MachineOSBuild{Spec: mcfgv1.MachineOSBuildSpec{
			MachineOSConfig: mcfgv1.MachineOSConfigReference{Name: "layered"}}}, "layered"},
	} {
		if got := requests(tt.before, tt.after); got != tt.want {
			t.Errorf("%s: leads to %q, want %q", tt.name, got, tt.want)
		}
	}
}
