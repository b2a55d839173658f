package build_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/build"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/world"
)

const one, two = "FROM configs AS final\nRUN echo one\n", "FROM configs AS final\nRUN echo two\n"

func mustConfig(label string) v1.Config { return v1.Config{Labels: map[string]string{"pod": label}} }

// ready returns a bench with a finished first build.
func ready(t *testing.T) (*bench, mcfgv1.MachineOSBuild) {
	t.Helper()
	b := newBench(t, 1, world.Lag{})
	b.apply(one)
	b.run(finished, b.succeeded)
	b.rest()
	return b, *b.only()
}

func TestBuild(t *testing.T) {
	b := newBench(t, 1, world.Lag{})
	b.apply(one)
	b.run(finished, func() bool { return len(b.builds()) == 1 })
	if s := state(b.only()); s != "" || b.only().Status.BuildStart != nil {
		t.Errorf("a new build has state %q", s)
	}
	b.run(finished, b.in("Building"))
	m := b.only()
	job := &batchv1.Job{}
	if err := b.c.Get(context.Background(), client.ObjectKey{Namespace: layering.Namespace, Name: layering.JobName(m.Name)}, job); err != nil {
		t.Fatal(err)
	}
	if m.Annotations[layering.JobUID] != string(job.UID) || !metav1.IsControlledBy(job, m) || !metav1.IsControlledBy(m, b.mosc()) {
		t.Errorf("owners are wrong:\n%s", b.dump())
	}
	if !slices.Equal(m.Finalizers, []string{metav1.FinalizerDeleteDependents}) {
		t.Errorf("finalizers: %v", m.Finalizers)
	}
	secret := &corev1.Secret{}
	if err := b.c.Get(context.Background(), client.ObjectKey{Namespace: layering.Namespace, Name: layering.PushSecretName(m.Name)}, secret); err != nil {
		t.Fatal(err)
	}
	if len(secret.OwnerReferences) != 1 || secret.OwnerReferences[0].UID != job.UID {
		t.Errorf("push secret's owners: %v", secret.OwnerReferences)
	}
	if got := b.pool(); got.Status != corev1.ConditionFalse || got.Reason != "Building" || got.Message != "Build started for pool layered" {
		t.Errorf("pool condition: %+v", got)
	}
	if b.mosc().Annotations[layering.CurrentBuild] != m.Name {
		t.Error("the annotation doesn't name the build that started")
	}
	b.run(finished, b.succeeded)
	b.rest()
	m = b.only()
	if !m.Status.BuildEnd.After(m.Status.BuildStart.Time) || m.Status.Builder.Job.Name != layering.JobName(m.Name) {
		t.Errorf("status: %+v", m.Status)
	}
	if len(m.Status.Conditions) != 5 {
		t.Errorf("%d conditions, want 5", len(m.Status.Conditions))
	}
	if left := b.left(); len(left) > 0 {
		t.Errorf("left after success: %v", left)
	}
	if b.jobs() != 1 || b.asked("HEAD") != 0 {
		t.Errorf("%d Jobs and %d questions to the registry, want 1 and 0", b.jobs(), b.asked("HEAD"))
	}
	if got := b.pool(); got.Reason != "BuildSuccess" || b.held() != "" {
		t.Errorf("pool condition: %+v, held %q", got, b.held())
	}
	if len(b.mosc().Status.Conditions) != 0 {
		t.Errorf("conditions of a MachineOSConfig that was never held: %v", b.mosc().Status.Conditions)
	}
	ref := b.mosc().Status.MachineOSBuild
	if ref == nil || ref.Name != m.Name || ref.Group != mcfgv1.GroupName || ref.Resource != "machineosbuilds" {
		t.Errorf("status.machineOSBuild: %v", ref)
	}
}

func TestFailureAndFix(t *testing.T) {
	for fails := 1; fails <= 4; fails++ {
		t.Run(fmt.Sprint(fails), func(t *testing.T) {
			b := newBench(t, 1, world.Lag{})
			first := ""
			b.outcome = func(job string, attempt int) outcome {
				if first == "" {
					first = job
				}
				return outcome{after: 5 * time.Second, fail: job == first && attempt <= fails}
			}
			b.apply(one)
			if fails < 4 {
				b.run(finished, b.succeeded)
				return
			}
			b.run(finished, b.in("Failed"))
			b.rest()
			failed := b.only()
			if b.pods[first] != 4 || b.jobs() != 1 || len(b.left()) != 6 {
				t.Errorf("%d attempts, %d Jobs, left %v", b.pods[first], b.jobs(), b.left())
			}
			want := "Failed to build OS image for pool layered (MachineOSBuild: " + failed.Name + "): Failed: Build Failed"
			if got := b.pool(); got.Status != corev1.ConditionTrue || got.Reason != "BuildFailed" ||
				!strings.HasPrefix(got.Message, want) || !strings.Contains(got.Message, "repository unreachable") {
				t.Errorf("pool condition: %+v", got)
			}
			b.apply(two)
			b.run(finished, b.in("Building"))
			if m := b.only(); m.Name == failed.Name {
				t.Errorf("the failed build outlives the start of the next\n%s", b.dump())
			}
			b.run(finished, b.succeeded)
			b.rest()
			if m := b.only(); m.Name == failed.Name || len(b.left()) != 0 || b.pool().Status != corev1.ConditionFalse {
				t.Errorf("after the fix: left %v\n%s", b.left(), b.dump())
			}
		})
	}
}

func TestSupersede(t *testing.T) {
	b := newBench(t, 1, world.Lag{})
	b.apply(one)
	b.run(finished, b.in("Building"))
	old := b.only()
	b.apply(two)
	b.run(finished, b.succeeded)
	b.rest()
	if m := b.only(); m.Name == old.Name || b.jobs() != 2 || len(b.left()) != 0 {
		t.Errorf("left %v\n%s", b.left(), b.dump())
	}
}

func TestRevertUsesTheImageAgain(t *testing.T) {
	b, first := ready(t)
	b.apply(two)
	b.run(finished, b.succeeded)
	b.apply(one)
	b.run(finished, b.succeeded)
	b.rest()
	if b.jobs() != 2 || b.asked("HEAD") != 1 || b.mosc().Status.CurrentImagePullSpec != first.Status.DigestedImagePushSpec {
		t.Errorf("%d Jobs, %d questions\n%s", b.jobs(), b.asked("HEAD"), b.dump())
	}
	// The same again with the image gone: exactly one build.
	b.apply(two)
	b.run(finished, b.succeeded)
	if err := b.registry.Delete(string(first.Status.DigestedImagePushSpec)); err != nil {
		t.Fatal(err)
	}
	b.apply(one)
	b.run(finished, func() bool { return b.succeeded() && b.jobs() == 3 })
	b.rest()
	if b.jobs() != 3 || len(b.builds()) != 2 {
		t.Errorf("%d Jobs\n%s", b.jobs(), b.dump())
	}
}

func TestUnreachableRegistryHoldsReuse(t *testing.T) {
	b, first := ready(t)
	b.apply(two)
	b.run(finished, b.succeeded)
	b.unreachable(true)
	b.apply(one)
	b.run(finished, func() bool { return b.held() == "RegistryError" })
	b.run(10*time.Minute, nil)
	if b.jobs() != 2 || len(b.builds()) != 2 {
		t.Errorf("an unreachable registry led to a build:\n%s", b.dump())
	}
	b.unreachable(false)
	b.run(time.Hour, b.succeeded)
	if b.mosc().Status.CurrentImagePullSpec != first.Status.DigestedImagePushSpec || b.jobs() != 2 || b.held() != "" {
		t.Errorf("held %q\n%s", b.held(), b.dump())
	}
}

func TestLayerOnlyChangeNeedsNoBuild(t *testing.T) {
	b, first := ready(t)
	b.config("rendered-layered-2", func(c *mcfgv1.MachineConfig) { c.Spec.FIPS = true })
	b.roll("rendered-layered-2")
	b.run(finished, func() bool { return len(b.builds()) == 2 && b.succeeded() })
	b.rest()
	for _, m := range b.builds() {
		if m.Status.DigestedImagePushSpec != first.Status.DigestedImagePushSpec {
			t.Errorf("other image:\n%s", b.dump())
		}
		if m.Name != first.Name && (m.Status.BuildStart != nil || m.Status.Builder != nil) {
			t.Errorf("a build that never ran has times: %+v", m.Status)
		}
	}
	if b.jobs() != 1 || b.asked("HEAD") != 1 {
		t.Errorf("%d Jobs, %d questions", b.jobs(), b.asked("HEAD"))
	}
	b.config("rendered-layered-3", func(c *mcfgv1.MachineConfig) { c.Spec.KernelArguments = []string{"debug"} })
	b.roll("rendered-layered-3")
	b.run(finished, func() bool { return b.jobs() == 2 && b.succeeded() })
}

func TestLayerOnlyChangeDuringBuild(t *testing.T) {
	b := newBench(t, 1, world.Lag{})
	b.config("rendered-layered-2", func(c *mcfgv1.MachineConfig) { c.Spec.FIPS = true })
	b.apply(one)
	b.run(finished, b.in("Building"))
	b.roll("rendered-layered-2")
	b.run(finished, func() bool { return len(b.builds()) == 2 && b.succeeded() })
	b.rest()
	if b.jobs() != 1 {
		t.Errorf("%d Jobs, want the first one to be enough\n%s", b.jobs(), b.dump())
	}
}

// A file-only change while an edited Containerfile is being built must not revive the old image.
func TestLayerOnlyChangeDoesNotHideAnEdit(t *testing.T) {
	b, first := ready(t)
	b.config("rendered-layered-2", func(c *mcfgv1.MachineConfig) { c.Spec.FIPS = true })
	b.apply(two)
	b.run(finished, b.in("Building"))
	b.roll("rendered-layered-2")
	b.run(finished, func() bool { return len(b.builds()) == 3 && b.succeeded() })
	b.rest()
	if b.jobs() != 2 || b.mosc().Status.CurrentImagePullSpec == first.Status.DigestedImagePushSpec {
		t.Errorf("%d Jobs\n%s", b.jobs(), b.dump())
	}
	// Both at once: exactly one build.
	b.config("rendered-layered-3", nil)
	b.roll("rendered-layered-3")
	b.apply("RUN echo three\n")
	b.run(finished, func() bool { return b.jobs() == 3 && b.succeeded() })
	b.rest()
	if b.jobs() != 3 {
		t.Errorf("%d Jobs\n%s", b.jobs(), b.dump())
	}
}

func TestRebuild(t *testing.T) {
	annotate := func(o client.Object) {
		metav1.SetMetaDataAnnotation(o.(metav1.ObjectMetaAccessor).GetObjectMeta().(*metav1.ObjectMeta), layering.Rebuild, "")
	}
	b, first := ready(t)
	for n := 2; n <= 3; n++ {
		before := b.mosc().Status.CurrentImagePullSpec
		b.edit(b.mosc(), annotate)
		b.run(finished, func() bool { return b.jobs() == n && b.succeeded() && b.mosc().Status.CurrentImagePullSpec != before })
		b.rest()
		m := b.only()
		_, asked := b.mosc().Annotations[layering.Rebuild]
		_, noted := b.mosc().Annotations[build.RebuildOf]
		if m.Name != first.Name || m.UID == first.UID || asked || noted || b.jobs() != n {
			t.Errorf("%d Jobs, asked %v, noted %v\n%s", b.jobs(), asked, noted, b.dump())
		}
		if b.has(before) {
			t.Error("the replaced image, which nothing uses, is still in the registry")
		}
	}
	// While building.
	b.apply(two)
	b.run(finished, b.in("Building"))
	b.edit(b.mosc(), annotate)
	b.run(finished, func() bool { return b.jobs() == 5 && b.succeeded() })
}

func TestInterrupt(t *testing.T) {
	for fails := range 4 {
		for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
			t.Run(fmt.Sprint(fails, policy), func(t *testing.T) {
				b := newBench(t, 1, world.Lag{})
				hang := true
				b.outcome = func(_ string, attempt int) outcome {
					return outcome{after: time.Second, fail: attempt <= fails, hang: hang && attempt > fails}
				}
				b.apply(one)
				job := &batchv1.Job{}
				b.run(finished, func() bool {
					list := &batchv1.JobList{}
					if err := b.c.List(context.Background(), list); err != nil || len(list.Items) == 0 {
						return false
					}
					job = &list.Items[0]
					return int(job.Status.Failed) == fails && job.Status.Active == 1 && state(b.only()) == "Building"
				})
				b.delete(job, client.PropagationPolicy(policy))
				b.run(finished, b.in("Interrupted"))
				b.rest()
				if b.jobs() != 1 || len(b.left()) != 0 || b.pool().Status != corev1.ConditionFalse {
					t.Errorf("%d Jobs, left %v", b.jobs(), b.left())
				}
				hang = false
				b.edit(b.mosc(), func(o client.Object) {
					o.SetAnnotations(map[string]string{layering.Rebuild: "", layering.CurrentBuild: o.GetAnnotations()[layering.CurrentBuild]})
				})
				b.run(finished, b.succeeded)
			})
		}
	}
}

func TestDeletedBuildIsMadeAgain(t *testing.T) {
	b := newBench(t, 1, world.Lag{})
	b.apply(one)
	b.run(finished, b.in("Building"))
	old := b.only()
	b.delete(old)
	b.run(finished, b.succeeded)
	b.rest()
	if m := b.only(); m.Name != old.Name || m.UID == old.UID || b.jobs() != 2 {
		t.Errorf("%d Jobs\n%s", b.jobs(), b.dump())
	}
}

// A digest that an earlier build of the name has left is not this build's.
func TestStaleDigest(t *testing.T) {
	b := newBench(t, 1, world.Lag{})
	b.apply(one)
	b.run(finished, func() bool { return len(b.builds()) == 1 })
	stale := "sha256:" + strings.Repeat("0", 64)
	b.create(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: layering.DigestName(b.only().Name)},
		Data:       map[string]string{"digest": stale},
	})
	b.run(finished, b.succeeded)
	if image := b.mosc().Status.CurrentImagePullSpec; !b.has(image) {
		t.Errorf("current image %s", image)
	}
}

func TestInvalidContainerfile(t *testing.T) {
	b, first := ready(t)
	b.apply("FROM configs AS final\nRUNN echo oops\n")
	b.run(finished, b.in("Failed"))
	b.rest()
	if b.jobs() != 1 || len(b.left()) != 0 {
		t.Errorf("%d Jobs, left %v", b.jobs(), b.left())
	}
	if got := b.pool(); got.Status != corev1.ConditionTrue || !strings.Contains(got.Message, "line 2: unknown instruction: RUNN") {
		t.Errorf("pool condition: %+v", got)
	}
	b.apply(one)
	b.run(finished, b.succeeded)
	b.rest()
	if m := b.only(); m.UID != first.UID || b.pool().Status != corev1.ConditionFalse {
		t.Errorf("%s", b.dump())
	}
}

func TestHolds(t *testing.T) {
	ns := layering.Namespace
	for _, test := range []struct {
		name, reason string
		builds       int
		spoil, mend  func(*bench)
	}{
		{"push secret missing", "SecretNotFound", 1,
			func(b *bench) { b.delete(b.secret("push", "")) }, func(b *bench) { b.create(b.secret("push", "secret")) }},
		{"default base secret missing", "SecretNotFound", 1,
			func(b *bench) { b.delete(b.secret(layering.GlobalPullSecretCopy, "")) },
			func(b *bench) { b.create(b.secret(layering.GlobalPullSecretCopy, "secret")) }},
		{"push secret malformed", "SecretInvalid", 1,
			func(b *bench) {
				b.edit(b.secret("push", ""), func(o client.Object) { o.(*corev1.Secret).Data[corev1.DockerConfigJsonKey] = []byte("null") })
			},
			func(b *bench) {
				b.edit(b.secret("push", ""), func(o client.Object) { o.(*corev1.Secret).Data = b.secret("push", "secret").Data })
			}},
		{"pool missing", "MachineConfigPoolNotFound", 0,
			func(b *bench) { b.delete(&mcfgv1.MachineConfigPool{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}) },
			func(b *bench) {
				pool := &mcfgv1.MachineConfigPool{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}
				pool.Spec.Configuration.Name = "rendered-layered-1"
				b.create(pool)
			}},
		{"config missing", "MachineConfigNotFound", 0,
			func(b *bench) { b.roll("rendered-layered-9") }, func(b *bench) { b.config("rendered-layered-9", nil) }},
		{"controllerconfig missing", "ControllerConfigNotFound", 1,
			func(b *bench) { b.delete(controllerConfig()) }, func(b *bench) { b.create(controllerConfig()) }},
		{"operator images missing", "OperatorImagesInvalid", 1,
			func(b *bench) {
				b.edit(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: layering.ImagesConfigMap}},
					func(o client.Object) { o.(*corev1.ConfigMap).Data = nil })
			},
			func(b *bench) {
				b.edit(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: layering.ImagesConfigMap}},
					func(o client.Object) {
						o.(*corev1.ConfigMap).Data = map[string]string{"images.json": `{"machineConfigOperator":"i"}`}
					})
			}},
		{"pool degraded", "MachineConfigPoolDegraded", 0,
			func(b *bench) { b.degrade(corev1.ConditionTrue) }, func(b *bench) { b.degrade(corev1.ConditionFalse) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t, 1, world.Lag{})
			test.spoil(b)
			b.apply(one)
			b.run(finished, func() bool { return b.held() != "" })
			b.rest()
			if b.held() != test.reason || len(b.builds()) != test.builds || b.jobs() != 0 || len(b.left()) != 0 {
				t.Errorf("held %q, left %v\n%s", b.held(), b.left(), b.dump())
			}
			for _, m := range b.builds() {
				if state(&m) != "" {
					t.Errorf("a held build has state %s", state(&m))
				}
			}
			test.mend(b)
			b.run(finished, b.succeeded)
			if b.held() != "" || b.jobs() != 1 {
				t.Errorf("held %q after the cause is gone, %d Jobs", b.held(), b.jobs())
			}
		})
	}
}

func (b *bench) degrade(status corev1.ConditionStatus) {
	pool := &mcfgv1.MachineConfigPool{}
	if err := b.c.Get(context.Background(), client.ObjectKey{Name: "layered"}, pool); err != nil {
		b.t.Fatal(err)
	}
	pool.Status.Conditions = slices.DeleteFunc(pool.Status.Conditions, func(c mcfgv1.MachineConfigPoolCondition) bool {
		return c.Type == mcfgv1.MachineConfigPoolNodeDegraded
	})
	pool.Status.Conditions = append(pool.Status.Conditions, mcfgv1.MachineConfigPoolCondition{
		Type: mcfgv1.MachineConfigPoolNodeDegraded, Status: status, LastTransitionTime: metav1.NewTime(b.w.Clock.Now()),
	})
	if err := b.c.Status().Update(context.Background(), pool); err != nil {
		b.t.Fatal(err)
	}
}

func TestSecrets(t *testing.T) {
	b, _ := ready(t)
	revision := b.w.Store.Revision()
	b.account("rotated")
	b.edit(b.secret("push", ""), func(o client.Object) { o.(*corev1.Secret).Data = b.secret("", "rotated").Data })
	b.rest()
	if got := b.w.Store.Revision(); got != revision+1 {
		t.Errorf("a changed secret led to %d writes", got-revision-1)
	}
	b.create(b.secret("other", "rotated"))
	b.edit(b.mosc(), func(o client.Object) { o.(*mcfgv1.MachineOSConfig).Spec.RenderedImagePushSecret.Name = "other" })
	b.run(finished, func() bool { return b.jobs() == 2 && b.succeeded() })
	b.rest()
	if b.jobs() != 2 {
		t.Errorf("%d Jobs after a changed name, want 2", b.jobs())
	}
}

// An image is deleted when its build is gone and no node has it, and not before, whoever was restarted in between.
func TestImageGuard(t *testing.T) {
	b, first := ready(t)
	image := first.Status.DigestedImagePushSpec
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", Annotations: map[string]string{
		layering.CurrentImage: string(image), layering.DesiredImage: string(image),
	}}}
	b.create(node)
	b.delete(b.mosc())
	b.rest()
	if len(b.builds()) != 0 || len(b.left()) != 0 || b.pool().Reason != "NoLayeredObjects" {
		t.Errorf("left %v, pool %+v\n%s", b.left(), b.pool(), b.dump())
	}
	if err := b.process.Restart(); err != nil {
		t.Fatal(err)
	}
	for _, has := range []string{layering.CurrentImage, layering.DesiredImage} {
		b.edit(node, func(o client.Object) { o.SetAnnotations(map[string]string{has: string(image)}) })
		b.rest()
		if !b.has(image) || b.asked("DELETE") != 0 {
			t.Fatalf("an image that a node has as %s was deleted", has)
		}
	}
	b.edit(node, func(o client.Object) { o.SetAnnotations(nil) })
	b.rest()
	if b.has(image) || b.asked("DELETE") != 1 {
		t.Errorf("%d deletions of an image that nobody needs", b.asked("DELETE"))
	}
	list := &corev1.ConfigMapList{}
	if err := b.c.List(context.Background(), list, client.HasLabels{build.PushedImages}); err != nil || len(list.Items) != 0 {
		t.Errorf("images are still noted: %v %v", list.Items, err)
	}
}

func TestRecreatedConfig(t *testing.T) {
	b, first := ready(t)
	collector := b.w.Process("kube")
	collector.Stop()
	b.delete(b.mosc())
	b.apply(one)
	b.run(time.Minute, nil)
	if b.mosc().Status.CurrentImagePullSpec != "" || b.only().DeletionTimestamp.IsZero() {
		t.Errorf("the build of the deleted MachineOSConfig counts for the new one\n%s", b.dump())
	}
	if err := collector.StartAgain(); err != nil {
		t.Fatal(err)
	}
	b.run(finished, func() bool { return b.jobs() == 2 && b.succeeded() })
	b.rest()
	m := b.only()
	if m.Name != first.Name || !metav1.IsControlledBy(m, b.mosc()) || !b.has(m.Status.DigestedImagePushSpec) {
		t.Errorf("%s", b.dump())
	}
}

// What happens while the builder is down is made up for when it is back.
func TestDown(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(*bench)
		jobs int
	}{
		{"the Job completes", func(b *bench) { b.run(time.Minute, nil) }, 1},
		{"the Job completes and is cleared away", func(b *bench) {
			b.run(time.Minute, nil)
			job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: layering.JobName(b.only().Name)}}
			b.delete(job, client.PropagationPolicy(metav1.DeletePropagationBackground))
			b.run(time.Minute, nil)
		}, 1},
		{"the spec changes", func(b *bench) { b.apply(two) }, 2},
		{"the config changes", func(b *bench) {
			b.config("rendered-layered-2", func(c *mcfgv1.MachineConfig) { c.Spec.KernelType = "realtime" })
			b.roll("rendered-layered-2")
		}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t, 1, world.Lag{})
			b.apply(one)
			b.run(finished, b.in("Building"))
			b.process.Stop()
			test.do(b)
			if err := b.process.StartAgain(); err != nil {
				t.Fatal(err)
			}
			b.run(finished, b.succeeded)
			b.rest()
			if b.jobs() != test.jobs || len(b.left()) != 0 {
				t.Errorf("%d Jobs, want %d; left %v\n%s", b.jobs(), test.jobs, b.left(), b.dump())
			}
		})
	}
}

// A crash at any write, under any schedule, costs time and nothing else.
func TestCrashAtEveryWrite(t *testing.T) {
	for write := 1; ; write++ {
		seed, after := uint64(write), write%4 == 0
		b := newBench(t, seed, world.Lag{OneIn: 4, Most: 3 * time.Second})
		fired := false
		b.process.CrashAt(world.Crash{After: after, Write: write, Fired: func(string) { fired = true }})
		b.apply(one)
		b.run(finished, b.in("Building"))
		b.apply(two)
		b.run(finished, b.succeeded)
		b.rest()
		// The first build may have ended while the builder was down.
		unfinished := slices.ContainsFunc(b.builds(), func(m mcfgv1.MachineOSBuild) bool { return state(&m) != "Succeeded" })
		if len(b.left()) != 0 || unfinished || b.jobs() != 2 {
			t.Fatalf("write %d: left %v\n%s", write, b.left(), b.dump())
		}
		if !fired {
			if write < 30 {
				t.Errorf("only %d writes", write-1)
			}
			return
		}
	}
}

// Reuse, rebuild and deletion under many schedules: the same end, with an image that is there.
func TestSchedules(t *testing.T) {
	for seed := range uint64(20) {
		b := newBench(t, seed, world.Lag{OneIn: 3, Most: 5 * time.Second})
		b.config("rendered-layered-2", func(c *mcfgv1.MachineConfig) { c.Spec.FIPS = true })
		b.config("rendered-layered-3", func(c *mcfgv1.MachineConfig) { c.Spec.KernelArguments = []string{"a"} })
		b.apply(one)
		b.run(finished, b.in("Building"))
		b.apply(two)
		b.roll("rendered-layered-2")
		b.run(time.Duration(seed)*7*time.Second, nil)
		b.apply(one)
		b.run(time.Duration(20-seed)*5*time.Second, nil)
		b.roll("rendered-layered-3")
		b.edit(b.mosc(), func(o client.Object) {
			annotations := o.GetAnnotations()
			if annotations == nil {
				annotations = map[string]string{}
			}
			annotations[layering.Rebuild] = ""
			o.SetAnnotations(annotations)
		})
		b.run(30*time.Second, nil)
		b.roll("rendered-layered-1")
		b.run(finished, b.succeeded)
		b.rest()
		if !b.succeeded() || len(b.left()) != 0 || !b.has(b.mosc().Status.CurrentImagePullSpec) || b.held() != "" {
			t.Fatalf("seed %d: left %v\n%s", seed, b.left(), b.dump())
		}
		if _, asked := b.mosc().Annotations[layering.Rebuild]; asked {
			t.Fatalf("seed %d: a rebuild is still asked for\n%s", seed, b.dump())
		}
	}
}
