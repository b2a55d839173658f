package kube_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/sim/kube"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

func configMap(name string, owners ...metav1.OwnerReference) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, OwnerReferences: owners}}
}

// ref is a reference to a ConfigMap.
func ref(o *corev1.ConfigMap, block bool) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: o.Name, UID: o.UID, BlockOwnerDeletion: &block}
}

// configMaps lists name(owners), sorted.
func (c *cluster) configMaps() []string {
	c.t.Helper()
	list := &corev1.ConfigMapList{}
	if err := c.List(c.ctx, list, client.InNamespace("ns")); err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, o := range list.Items {
		var owners []string
		for _, r := range o.OwnerReferences {
			owners = append(owners, r.Name)
		}
		out = append(out, fmt.Sprintf("%s(%s)", o.Name, strings.Join(owners, " ")))
	}
	slices.Sort(out)
	return out
}

func TestGarbageCollector(t *testing.T) {
	for _, tc := range []struct {
		name   string
		policy metav1.DeletionPropagation
		want   []string
	}{
		{"background", metav1.DeletePropagationBackground, []string{"both(other)", "other()"}},
		{"foreground", metav1.DeletePropagationForeground, []string{"both(other)", "other()"}},
		{"orphan", metav1.DeletePropagationOrphan,
			[]string{"both(other)", "child()", "free()", "grandchild(child)", "other()"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(20) {
				for _, crash := range []int{0, 1, 2, 3, 4, 5} {
					lag := world.Lag{OneIn: 3, Most: 5 * time.Second}
					c := newCluster(t, seed, lag, kube.GarbageCollector(kube.Options{}))
					if crash > 0 {
						c.world.Process("garbage-collector").CrashAt(world.Crash{Write: crash, After: seed%2 == 0})
					}
					owner, other := configMap("owner"), configMap("other")
					c.create(owner, other)
					child := configMap("child", ref(owner, true))
					c.create(child)
					c.create(configMap("grandchild", ref(child, true)))
					c.create(configMap("free", ref(owner, false)))
					c.create(configMap("both", ref(owner, true), ref(other, true)))
					if seed%3 == 0 {
						c.rest(time.Minute)
					}
					var order []string
					c.store.OnChange(func(ch *store.Change) {
						if ch.New == nil {
							order = append(order, ch.Name)
						}
					})
					if err := c.Delete(c.ctx, owner, client.PropagationPolicy(tc.policy)); err != nil {
						t.Fatal(err)
					}
					c.rest(time.Hour)
					if diff := cmp.Diff(tc.want, c.configMaps()); diff != "" {
						t.Fatalf("seed %d, crash %d: (-want +got):\n%s", seed, crash, diff)
					}
					if tc.policy == metav1.DeletePropagationForeground {
						at := func(name string) int { return slices.Index(order, name) }
						if at("owner") < at("child") || at("child") < at("grandchild") {
							t.Errorf("seed %d, crash %d: foreground deletion in the order %v", seed, crash, order)
						}
					}
				}
			}
		})
	}
}

// A dependent that names an owner of another UID, or one that never was, goes; it takes a live look to say so.
func TestGarbageCollectorAbsentOwner(t *testing.T) {
	c := newCluster(t, 1, world.Lag{}, kube.GarbageCollector(kube.Options{}))
	owner := configMap("owner")
	c.create(owner)
	wrong := ref(owner, false)
	wrong.UID = types.UID("00000000-0000-4000-8000-000000000000")
	unknown := metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Unknown", Name: "x", UID: "1"}
	c.create(configMap("right", ref(owner, false)), configMap("wrong", wrong), configMap("unknown", unknown))
	c.rest(time.Minute)
	if diff := cmp.Diff([]string{"owner()", "right(owner)", "unknown(x)"}, c.configMaps()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// The name is taken again at once by another object: not the same owner.
	if err := c.Delete(c.ctx, owner); err != nil {
		t.Fatal(err)
	}
	c.create(configMap("owner"))
	c.rest(2 * time.Minute)
	if diff := cmp.Diff([]string{"owner()", "unknown(x)"}, c.configMaps()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Two objects that own each other, and block each other, don't hold up the deletion of one of them.
func TestGarbageCollectorCycle(t *testing.T) {
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		c := newCluster(t, 1, world.Lag{}, kube.GarbageCollector(kube.Options{}))
		a := configMap("a")
		c.create(a)
		b := configMap("b", ref(a, true))
		c.create(b)
		a.OwnerReferences = []metav1.OwnerReference{ref(b, true)}
		if err := c.Update(c.ctx, a); err != nil {
			t.Fatal(err)
		}
		c.rest(time.Minute)
		if err := c.Delete(c.ctx, a, client.PropagationPolicy(policy)); err != nil {
			t.Fatal(err)
		}
		c.rest(time.Hour)
		if got := c.configMaps(); len(got) != 0 {
			t.Errorf("%s: %v are left", policy, got)
		}
	}
}

// A MachineOSBuild carries the finalizer foregroundDeletion from its creation, and goes with its MachineOSConfig.
func TestGarbageCollectorMachineOSBuild(t *testing.T) {
	c := newCluster(t, 1, world.Lag{OneIn: 3, Most: 5 * time.Second},
		kube.GarbageCollector(kube.Options{}), kube.JobController(), kube.Scheduler(), kubelet(forever))
	c.installCRDs()
	c.create(node("n1"))
	config := &mcfgv1.MachineOSConfig{
		ObjectMeta: metav1.ObjectMeta{Name: "layered"},
		Spec: mcfgv1.MachineOSConfigSpec{
			MachineConfigPool:       mcfgv1.MachineConfigPoolReference{Name: "layered"},
			ImageBuilder:            mcfgv1.MachineOSImageBuilder{ImageBuilderType: "Job"},
			RenderedImagePushSecret: mcfgv1.ImageSecretObjectReference{Name: "push"},
			RenderedImagePushSpec:   "quay.io/a/b:latest",
		},
	}
	c.create(config)
	build := &mcfgv1.MachineOSBuild{
		ObjectMeta: metav1.ObjectMeta{
			Name: "layered-1", Finalizers: []string{metav1.FinalizerDeleteDependents},
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(config, mcfgv1.GroupVersion.WithKind("MachineOSConfig")),
			},
		},
		Spec: mcfgv1.MachineOSBuildSpec{
			MachineConfig:         mcfgv1.MachineConfigReference{Name: "rendered-layered-1"},
			MachineOSConfig:       mcfgv1.MachineOSConfigReference{Name: "layered"},
			RenderedImagePushSpec: "quay.io/a/b:latest",
		},
	}
	c.create(build)
	j := job("build-layered-1")
	j.OwnerReferences = []metav1.OwnerReference{
		*metav1.NewControllerRef(build, mcfgv1.GroupVersion.WithKind("MachineOSBuild")),
	}
	c.create(j)
	c.create(configMap("digest"), configMap("containerfile", metav1.OwnerReference{
		APIVersion: "batch/v1", Kind: "Job", Name: j.Name, UID: j.UID,
	}))
	c.rest(time.Minute)
	if b, ok := get[mcfgv1.MachineOSBuild](c, "layered-1"); !ok || b.DeletionTimestamp != nil || len(c.pods()) != 1 {
		t.Fatalf("before the deletion: build %v, %d pods", ok, len(c.pods()))
	}
	var order []string
	c.store.OnChange(func(ch *store.Change) {
		if ch.New == nil {
			order = append(order, ch.GVK.Kind)
		}
	})
	if err := c.Delete(c.ctx, config); err != nil {
		t.Fatal(err)
	}
	c.rest(time.Hour)
	if _, ok := get[mcfgv1.MachineOSBuild](c, "layered-1"); ok {
		t.Error("the MachineOSBuild is left")
	}
	if diff := cmp.Diff([]string{"digest()"}, c.configMaps()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	order = slices.DeleteFunc(order, func(kind string) bool { return kind == "ConfigMap" })
	if diff := cmp.Diff([]string{"MachineOSConfig", "Pod", "Job", "MachineOSBuild"}, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// An event costs the same whatever else there is.
func TestGarbageCollectorCost(t *testing.T) {
	requests := func(others int) int {
		c := newCluster(t, 1, world.Lag{})
		owner := configMap("owner")
		c.create(owner)
		for i := range others {
			c.create(configMap(fmt.Sprintf("other-%d", i), ref(owner, true)))
		}
		n := 0
		c.world.Hooks = &world.Hooks{Before: func(*store.Request) error { n++; return nil }}
		gc := kube.GarbageCollector(kube.Options{})
		if _, err := c.world.Start(gc.Name, 1, gc); err != nil {
			t.Fatal(err)
		}
		c.rest(time.Minute)
		n = 0
		last := configMap("last", ref(owner, true))
		c.create(last)
		c.rest(2 * time.Minute)
		if err := c.Delete(c.ctx, last); err != nil {
			t.Fatal(err)
		}
		c.rest(3 * time.Minute)
		return n
	}
	if few, many := requests(3), requests(300); few != many || few == 0 {
		t.Errorf("%d requests among 3 objects, %d among 300", few, many)
	}
}
