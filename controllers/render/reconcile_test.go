package render_test

import (
	"context"
	"fmt"
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
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/controllers/render"
	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/store"
)

// cluster is an API server with a ControllerConfig, pool layered and one MachineConfig, and a render controller.
type cluster struct {
	*testing.T
	store      *store.Store
	client     client.Client
	frozen     int64 // the revision at which the controller sees MachineConfigs; 0: the newest
	clock      *clocktesting.FakePassiveClock
	events     *events.FakeRecorder
	before     func(*store.Request) error
	reconciler reconcile.Reconciler
}

func (c *cluster) Revision(gvk schema.GroupVersionKind) int64 {
	if c.frozen > 0 && gvk.Kind == "MachineConfig" {
		return c.frozen
	}
	return c.store.Revision()
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcfgv1.Install, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, 8, 20, 10, 0, 0, 0, time.UTC))
	c := &cluster{T: t, clock: clock, store: store.New(store.Options{Clock: clock, Scheme: scheme}), events: events.NewFakeRecorder(100)}
	c.client = c.store.Client(store.ClientOptions{Author: "test"})
	crds, err := fixtures.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range crds {
		if strings.HasPrefix(crd.Name, "machineconfigpools.") || strings.HasPrefix(crd.Name, "machineconfigs.") {
			c.create(crd.DeepCopy())
		}
		if strings.HasPrefix(crd.Name, "controllerconfigs.") {
			// The real one asks for a whole cluster's description.
			crd = crd.DeepCopy()
			keep := true
			crd.Spec.Versions[0].Schema.OpenAPIV3Schema = &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &keep}
			c.create(crd)
		}
	}
	controller := controllerConfig()
	controller.Annotations = map[string]string{layering.ReleaseImageVersion: "4.18.0"}
	c.create(controller)
	pool := &mcfgv1.MachineConfigPool{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}
	pool.Spec.MachineConfigSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: layering.MachineConfigRole, Operator: metav1.LabelSelectorOpIn, Values: []string{"worker", "layered"}}}}
	c.create(pool)
	c.add("00-worker", "worker")
	before := func(r *store.Request) error {
		if c.before != nil {
			return c.before(r)
		}
		return nil
	}
	c.reconciler, err = render.New(render.Options{Version: "test"}).New(component.Env{
		Client:   c.store.Client(store.ClientOptions{Author: render.ComponentName, View: c, Before: before}),
		Live:     c.store.Client(store.ClientOptions{Author: render.ComponentName, Before: before}),
		Clock:    clock,
		Recorder: c.events,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) create(o client.Object) {
	c.Helper()
	if err := c.client.Create(context.Background(), o); err != nil {
		c.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

func (c *cluster) add(name, role string) {
	c.Helper()
	mc := source(name, role, file("/etc/"+name, name), nil)
	c.create(&mc)
}

func (c *cluster) remove(name string) {
	c.Helper()
	if err := c.client.Delete(context.Background(), &mcfgv1.MachineConfig{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) sync() error {
	_, err := c.reconciler.Reconcile(context.Background(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "layered"}})
	return err
}

func (c *cluster) mustSync() {
	c.Helper()
	if err := c.sync(); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) pool() *mcfgv1.MachineConfigPool {
	c.Helper()
	p := &mcfgv1.MachineConfigPool{}
	if err := c.client.Get(context.Background(), client.ObjectKey{Name: "layered"}, p); err != nil {
		c.Fatal(err)
	}
	return p
}

func (c *cluster) edit(fn func(*mcfgv1.MachineConfigPool)) {
	c.Helper()
	p := c.pool()
	fn(p)
	if err := c.client.Update(context.Background(), p); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) rendered() *mcfgv1.MachineConfig {
	c.Helper()
	mc := &mcfgv1.MachineConfig{}
	if err := c.client.Get(context.Background(), client.ObjectKey{Name: c.pool().Spec.Configuration.Name}, mc); err != nil {
		c.Fatal(err)
	}
	return mc
}

func TestRender(t *testing.T) {
	c := newCluster(t)
	c.edit(func(p *mcfgv1.MachineConfigPool) { p.Spec.Paused = true }) // which makes no difference
	c.mustSync()
	first := c.rendered()
	if owner := metav1.GetControllerOf(first); owner == nil || owner.UID != c.pool().UID {
		t.Errorf("owner is %v, want the pool", owner)
	}
	if got := first.Annotations[layering.GeneratedByController] + " " + first.Annotations[layering.ReleaseImageVersion]; got != "test 4.18.0" {
		t.Errorf("annotations %q", got)
	}
	want := "Normal RenderedConfigGenerated " + first.Name + " successfully generated (release version: 4.18.0, controller version: test)"
	if got := <-c.events.Events; got != want {
		t.Errorf("event %q, want %q", got, want)
	}

	c.add("90-layered", "layered")
	c.add("50-master", "master")
	c.mustSync()
	second := c.rendered()
	var sources []string
	for _, s := range c.pool().Spec.Configuration.Source {
		sources = append(sources, s.APIVersion+" "+s.Kind+" "+s.Name)
	}
	const of = "machineconfiguration.openshift.io/v1 MachineConfig "
	if !slices.Equal(sources, []string{of + "00-worker", of + "90-layered"}) {
		t.Errorf("sources %q", sources)
	}
	revision := c.store.Revision()
	c.mustSync()
	if c.store.Revision() != revision {
		t.Errorf("a sync with nothing to do writes")
	}

	// Back to the first, which is still there; and one that somebody removes comes back.
	c.remove("90-layered")
	c.mustSync()
	if got := c.rendered(); got.UID != first.UID || second.Name == first.Name {
		t.Errorf("back to the first sources leads to %s, want %s", got.Name, first.Name)
	}
	c.remove(first.Name)
	c.mustSync()
	if got := c.rendered(); got.Name != first.Name || got.UID == first.UID {
		t.Errorf("removed %s came back as %s", first.Name, got.Name)
	}
}

func TestRenderDegraded(t *testing.T) {
	c := newCluster(t)
	c.mustSync()
	good := c.pool().Spec.Configuration.Name
	degraded := func() string {
		cond := layering.PoolCondition(c.pool().Status.Conditions, mcfgv1.MachineConfigPoolRenderDegraded)
		if cond == nil {
			return "none"
		}
		return fmt.Sprint(cond.Status, " ", cond.Message)
	}
	for _, tt := range []struct {
		name  string
		spoil func()
		mend  func()
		want  string
	}{
		{"broken ignition", func() {
			mc := source("95-bad", "layered", `{"storage":{}}`, nil)
			c.create(&mc)
		}, func() { c.remove("95-bad") },
			"Failed to render configuration for pool layered: machineconfig 95-bad: ignition config has no ignition.version"},
		{"fips", func() {
			mc := source("95-fips", "layered", "", func(s *mcfgv1.MachineConfigSpec) { s.FIPS = true })
			c.create(&mc)
		}, func() { c.remove("95-fips") },
			"Failed to render configuration for pool layered: detected change to FIPS flag; refusing to modify FIPS on a running cluster"},
		{"no sources", func() { c.remove("00-worker") }, func() { c.add("00-worker", "worker") },
			"Failed to render configuration for pool layered: no MachineConfigs found matching selector"},
	} {
		tt.spoil()
		c.mustSync()
		if got := degraded(); got != "True "+tt.want {
			t.Errorf("%s: RenderDegraded %q, want %q", tt.name, got, tt.want)
		}
		if got := c.pool().Spec.Configuration.Name; got != good {
			t.Errorf("%s: configuration moved to %q", tt.name, got)
		}
		tt.mend()
		c.mustSync()
		if got := degraded(); got != "False " {
			t.Errorf("%s, mended: RenderDegraded %q", tt.name, got)
		}
	}
}

// TestOldCache: a cache that doesn't know a MachineConfig yet doesn't take the pool back.
func TestOldCache(t *testing.T) {
	c := newCluster(t)
	c.mustSync()
	old := c.store.Revision()
	c.add("90-layered", "layered")
	c.mustSync()
	want := c.pool().Spec.Configuration.Name
	c.frozen = old
	c.mustSync()
	if got := c.pool().Spec.Configuration.Name; got != want {
		t.Errorf("configuration went from %s to %s", want, got)
	}
}

// TestGuards: what keeps the controller from rendering at all.
func TestGuards(t *testing.T) {
	c := newCluster(t)
	set := func(fn func(*mcfgv1.ControllerConfig)) {
		t.Helper()
		o := &mcfgv1.ControllerConfig{}
		if err := c.client.Get(context.Background(), client.ObjectKey{Name: layering.ControllerConfigName}, o); err != nil {
			t.Fatal(err)
		}
		fn(o)
		if err := c.client.Status().Update(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	condition := func(kind mcfgv1.ControllerConfigStatusConditionType) []mcfgv1.ControllerConfigStatusCondition {
		return []mcfgv1.ControllerConfigStatusCondition{{Type: kind, Status: corev1.ConditionTrue}}
	}
	for _, kind := range []mcfgv1.ControllerConfigStatusConditionType{mcfgv1.TemplateControllerRunning,
		mcfgv1.TemplateControllerFailing, mcfgv1.TemplateControllerCompleted} {
		set(func(o *mcfgv1.ControllerConfig) {
			o.Status.Conditions = condition(kind)
			o.Status.ObservedGeneration = o.Generation
			if kind == mcfgv1.TemplateControllerCompleted {
				o.Status.ObservedGeneration--
			}
		})
		c.mustSync()
		if got := c.pool(); got.Spec.Configuration.Name != "" || len(got.Status.Conditions) > 0 {
			t.Errorf("%s: rendered %q, conditions %v", kind, got.Spec.Configuration.Name, got.Status.Conditions)
		}
	}
	set(func(o *mcfgv1.ControllerConfig) { o.Status.ObservedGeneration = o.Generation })
	c.mustSync()
	if c.pool().Spec.Configuration.Name == "" {
		t.Error("nothing rendered though the template controller is done")
	}

	c = newCluster(t)
	c.edit(func(p *mcfgv1.MachineConfigPool) { p.Spec.MachineConfigSelector = &metav1.LabelSelector{} })
	c.mustSync()
	c.mustSync()
	if p := c.pool(); p.Spec.Configuration.Name != "" || len(p.Status.Conditions) > 0 || len(c.events.Events) != 1 {
		t.Errorf("empty selector: rendered %q, conditions %v, %d events", p.Spec.Configuration.Name, p.Status.Conditions, len(c.events.Events))
	}
}

// TestOthersConditionsSurvive: a condition that another controller writes at the very moment isn't lost.
func TestOthersConditionsSurvive(t *testing.T) {
	c := newCluster(t)
	c.before = func(r *store.Request) error {
		if r.Verb == "patch" && r.Subresource == "status" {
			c.before = nil
			p := c.pool()
			layering.SetPoolCondition(&p.Status.Conditions, mcfgv1.MachineConfigPoolCondition{
				Type: mcfgv1.MachineConfigPoolImageBuildDegraded, Status: corev1.ConditionTrue}, c.clock.Now())
			if err := c.client.Status().Update(context.Background(), p); err != nil {
				t.Fatal(err)
			}
		}
		return nil
	}
	if err := c.sync(); !apierrors.IsConflict(err) {
		t.Fatalf("sync: %v, want a conflict", err)
	}
	c.mustSync()
	if got := c.pool().Status.Conditions; len(got) != 2 {
		t.Errorf("conditions %v, want two", got)
	}
}

// TestSelectorByExclusion: what was rendered has no labels, so a selector that excludes a role matches it.
func TestSelectorByExclusion(t *testing.T) {
	c := newCluster(t)
	c.edit(func(p *mcfgv1.MachineConfigPool) {
		p.Spec.MachineConfigSelector.MatchExpressions[0].Operator = metav1.LabelSelectorOpNotIn
		p.Spec.MachineConfigSelector.MatchExpressions[0].Values = []string{"master"}
	})
	c.mustSync()
	first := c.pool().Spec.Configuration
	c.mustSync()
	if got := c.pool().Spec.Configuration; got.Name != first.Name || len(got.Source) != 1 {
		t.Errorf("rendered %s of %v, and then %s of %v", first.Name, first.Source, got.Name, got.Source)
	}
}
