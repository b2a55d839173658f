//go:build likeness

package proxy_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/sim/cluster/envtest"
	"github.com/layersim/layersim/sim/cluster/proxy"
	"github.com/layersim/layersim/sim/store"
)

// Clients of all kinds work through the proxy in front of a real API server, and what they do is understood.
func TestRealServer(t *testing.T) {
	cp, err := envtest.Start(t.Context(), envtest.Options{})
	must(t, err)
	defer func() { must(t, cp.Stop()) }()
	var mu sync.Mutex
	var got []string
	var fail error
	p, err := proxy.New(proxy.Options{
		Target: cp.Config, Kinds: kindOf,
		Before: func(*store.Request) error { mu.Lock(); defer mu.Unlock(); return fail },
		Observe: func(w proxy.Write) {
			mu.Lock()
			defer mu.Unlock()
			name := w.Request.Name
			if strings.HasPrefix(name, "made-") {
				name = "made-?"
			}
			got = append(got, fmt.Sprintf("%s %s/%s %s/%s dry:%t code:%d %s rv:%t uid:%t object:%t", w.Request.Verb, w.Request.GVK.Kind, w.Request.Subresource,
				w.Request.Namespace, name, w.Request.DryRun, w.Code, w.Reason, w.ResourceVersion != "", w.UID != "", w.Request.Object != nil))
		},
	})
	must(t, err)
	defer func() { must(t, p.Close()) }()
	c := p.Admit("machine-os-builder")
	config := c.Config()
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	typed, err := corev1client.NewForConfig(config)
	must(t, err)
	ctx, pods := t.Context(), typed.Pods("default")
	watch, err := pods.Watch(ctx, metav1.ListOptions{})
	must(t, err)

	template := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "made-", Labels: map[string]string{"a": "b"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	_, err = typed.ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	must(t, err)
	pod, err := pods.Create(ctx, template.DeepCopy(), metav1.CreateOptions{})
	must(t, err)
	if m := pod.ManagedFields; len(m) != 1 || m[0].Manager != "machine-os-builder" {
		t.Errorf("managed by %v", m)
	}
	if e := <-watch.ResultChan(); e.Object.(*corev1.Pod).Name != pod.Name { //nolint:forcetypeassert // the test fails
		t.Errorf("watched %v", e)
	}
	watch.Stop()
	_, err = pods.Create(ctx, template.DeepCopy(), metav1.CreateOptions{DryRun: []string{"All"}})
	must(t, err)
	_, err = pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bad"}}, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Error(err)
	}
	pod.Status.Phase = corev1.PodRunning
	pod, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	must(t, err)
	pod.ResourceVersion = "1"
	if _, err := pods.Update(ctx, pod, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Error(err)
	}
	must(t, pods.Delete(ctx, pod.Name, metav1.DeleteOptions{DryRun: []string{"All"}}))
	must(t, pods.EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: "default"}}))
	_, err = typed.ConfigMaps("default").Apply(ctx, applycorev1.ConfigMap("m", "default").WithData(map[string]string{"k": "v"}), metav1.ApplyOptions{FieldManager: "f"})
	must(t, err)
	must(t, typed.ConfigMaps("default").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))

	cached, err := client.New(c.Config(), client.Options{})
	must(t, err)
	must(t, cached.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "l"}}))
	must(t, cached.Delete(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "l"}}))

	objects, err := metadata.NewForConfig(c.Config())
	must(t, err)
	list, err := objects.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).List(ctx, metav1.ListOptions{})
	must(t, err)
	if len(list.Items) < 3 || list.Items[0].Kind != "PartialObjectMetadata" {
		t.Errorf("metadata is %+v", list)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Config().Host+"api/v1/namespaces", nil)
	must(t, err)
	r.Header.Set("Accept", "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	res, err := c.Config().Transport.RoundTrip(r)
	must(t, err)
	body, err := io.ReadAll(res.Body)
	must(t, err)
	var table metav1.Table
	if err := json.Unmarshal(body, &table); err != nil || table.Kind != "Table" || len(table.Rows) < 3 {
		t.Errorf("table is %s, %v", body, err)
	}

	fail = apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "p", fmt.Errorf("fault"))
	if _, err := pods.Create(ctx, template.DeepCopy(), metav1.CreateOptions{}); !apierrors.IsConflict(err) {
		t.Error(err)
	}
	c.Cut()
	if _, err := pods.Get(ctx, "p", metav1.GetOptions{}); err == nil || apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
		t.Errorf("cut: %v", err)
	}
	diff(t, "writes", got, []string{
		"create ServiceAccount/ default/default dry:false code:0  rv:true uid:true object:true",
		"create Pod/ default/made-? dry:false code:0  rv:true uid:true object:true",
		"create Pod/ default/made-? dry:true code:0  rv:false uid:true object:true",
		"create Pod/ default/bad dry:false code:422 Invalid rv:false uid:false object:true",
		"update Pod/status default/made-? dry:false code:0  rv:true uid:true object:true",
		"update Pod/ default/made-? dry:false code:409 Conflict rv:false uid:false object:true",
		"delete Pod/ default/made-? dry:true code:0  rv:true uid:true object:false",
		"create Pod/eviction default/made-? dry:false code:0  rv:false uid:false object:true",
		"apply ConfigMap/ default/m dry:false code:0  rv:true uid:true object:true",
		"deletecollection ConfigMap/ default/ dry:false code:0  rv:false uid:false object:false",
		"create Lease/ default/l dry:false code:0  rv:true uid:true object:true",
		"delete Lease/ default/l dry:false code:0  rv:false uid:true object:false",
		"create Pod/ default/ dry:false code:409 Conflict rv:false uid:false object:true",
	})
}
