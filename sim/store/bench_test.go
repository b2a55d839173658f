package store_test

import (
	"fmt"
	"testing"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/fixtures"
)

func node(i int) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:   fmt.Sprintf("node-%04d", i),
		Labels: map[string]string{"node-role.kubernetes.io/worker": "", "kubernetes.io/hostname": fmt.Sprintf("node-%04d", i)},
		Annotations: map[string]string{
			"machineconfiguration.openshift.io/currentConfig": "rendered-worker-0123456789abcdef0123456789abcdef",
			"machineconfiguration.openshift.io/desiredConfig": "rendered-worker-0123456789abcdef0123456789abcdef",
			"machineconfiguration.openshift.io/state":         "Done",
		},
	}}
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: t, Status: corev1.ConditionTrue, Reason: "KubeletReady",
			LastHeartbeatTime: metav1.NewTime(start), LastTransitionTime: metav1.NewTime(start)})
	}
	return n
}

func BenchmarkStore(b *testing.B) {
	for _, size := range []int{100, 1000} {
		s := newServer(b)
		for i := range size {
			must(b, s.Create(b.Context(), node(i)))
		}
		run := func(name string, fn func(i int)) {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					fn(i)
				}
			})
		}
		next := 0
		run("create", func(int) {
			next++
			c := configMap(fmt.Sprintf("c%d", next), map[string]string{"k": "v"})
			must(b, s.Create(b.Context(), c))
			must(b, s.Delete(b.Context(), c))
		})
		n := &corev1.Node{}
		run("get", func(i int) {
			must(b, s.Get(b.Context(), types.NamespacedName{Name: fmt.Sprintf("node-%04d", i%size)}, n))
		})
		run("update", func(i int) {
			must(b, s.Get(b.Context(), types.NamespacedName{Name: fmt.Sprintf("node-%04d", i%size)}, n))
			n.Annotations["tick"] = fmt.Sprint(i)
			must(b, s.Update(b.Context(), n))
		})
		run("patch", func(i int) {
			o := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%04d", i%size)}}
			must(b, s.Patch(b.Context(), o, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{"tick":"%d"}}}`, i+1<<30))))
		})
		run("list", func(int) {
			var l corev1.NodeList
			must(b, s.List(b.Context(), &l))
		})
		run("list-shared", func(int) {
			var l corev1.NodeList
			must(b, s.List(b.Context(), &l, client.UnsafeDisableDeepCopy))
		})
	}
	b.Run("pool-status", func(b *testing.B) {
		s := newServer(b)
		p := &mcfgv1.MachineConfigPool{ObjectMeta: metav1.ObjectMeta{Name: "worker"}}
		must(b, s.Create(b.Context(), p))
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			p.Status.MachineCount = int32(i)
			must(b, s.Status().Update(b.Context(), p))
		}
	})
	b.Run("osbuild-status", func(b *testing.B) {
		s := newServer(b)
		o := osBuild("b")
		must(b, s.Create(b.Context(), o))
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			o.Status.RelatedObjects = []mcfgv1.ObjectReference{{Group: "batch", Resource: "jobs", Namespace: "ns", Name: fmt.Sprintf("j%d", i)}}
			must(b, s.Status().Update(b.Context(), o))
		}
	})
	b.Run("install-crds", func(b *testing.B) {
		if _, err := fixtures.CRDs(); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			newServer(b)
		}
	})
}
