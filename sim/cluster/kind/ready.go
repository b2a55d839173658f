package kind

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/sim/history"
)

// ready waits until the cluster can run pods.
func (c *Cluster) ready(ctx context.Context, steps *steps) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme)); err != nil {
		return err
	}
	api, err := client.NewWithWatch(c.Config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	if err := until(ctx, api, &corev1.NodeList{}, nodeReady, client.MatchingLabels{history.World: "true"}); err != nil {
		return fmt.Errorf("wait for the node: %w", err)
	}
	steps.done("the node is ready")
	if err := api.Patch(ctx, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{
		Namespace: metav1.NamespaceSystem, Name: "kube-proxy",
	}}, client.RawPatch(types.MergePatchType, []byte(kubeProxy))); err != nil {
		return fmt.Errorf("keep kube-proxy off simulated nodes: %w", err)
	}
	err = until(ctx, api, &corev1.ServiceAccountList{}, func(all map[types.UID]client.Object) string {
		if len(all) == 0 {
			return "namespace default has no service account"
		}
		return ""
	}, client.InNamespace(metav1.NamespaceDefault))
	if err != nil {
		return fmt.Errorf("wait for the service account of namespace default: %w", err)
	}
	if err := until(ctx, api, &corev1.PodList{}, systemReady, client.InNamespace(metav1.NamespaceSystem)); err != nil {
		return fmt.Errorf("wait for the pods of the system: %w", err)
	}
	steps.done("the pods of the system are ready")
	return nil
}

// kubeProxy keeps the DaemonSet off nodes that are simulated, and its running pod as it is.
const kubeProxy = `{"spec": {
	"updateStrategy": {"type": "OnDelete", "rollingUpdate": null},
	"template": {"spec": {"nodeSelector": {"` + history.World + `": "true"}}}
}}`

// nodeReady says what is missing until there is a node and it takes pods. Simulated nodes are not asked: they come later.
func nodeReady(all map[types.UID]client.Object) string {
	missing := "there is no node"
	for _, o := range all {
		node := o.(*corev1.Node)
		missing = "node " + node.Name + " is not ready"
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				missing = ""
			} else if condition.Type == corev1.NodeReady {
				missing += ": " + condition.Message
			}
		}
		for _, taint := range node.Spec.Taints {
			if taint.Effect != corev1.TaintEffectPreferNoSchedule {
				missing = "node " + node.Name + " has the taint " + taint.Key
			}
		}
		if missing != "" {
			return missing
		}
	}
	return missing
}

// systemReady says what is missing until names are resolved, services are reached, and all else is ready.
func systemReady(all map[types.UID]client.Object) string {
	wanted := map[string]bool{"kube-dns": false, "kube-proxy": false}
	for _, o := range all {
		pod := o.(*corev1.Pod)
		ready := false
		for _, condition := range pod.Status.Conditions {
			ready = ready || condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
		}
		if !ready {
			return "pod " + pod.Name + " is not ready"
		}
		wanted[pod.Labels["k8s-app"]] = true
	}
	for _, app := range []string{"kube-dns", "kube-proxy"} {
		if !wanted[app] {
			return "there is no pod of " + app
		}
	}
	return ""
}

// until watches objects until nothing is missing. When the context ends, the error says what was.
func until(
	ctx context.Context, api client.WithWatch, list client.ObjectList, missing func(map[types.UID]client.Object) string,
	options ...client.ListOption,
) error {
	last := "the API server does not answer"
	for {
		done, err := look(ctx, api, list, missing, &last, options)
		switch {
		case done:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %s", context.Cause(ctx), last)
		case err != nil:
			// The API server may be starting, or starting again.
			last = err.Error()
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// look lists, and watches until nothing is missing, which it returns, or until the watch ends.
func look(
	ctx context.Context, api client.WithWatch, list client.ObjectList, missing func(map[types.UID]client.Object) string,
	last *string, options []client.ListOption,
) (bool, error) {
	if err := api.List(ctx, list, options...); err != nil {
		return false, err
	}
	all := make(map[types.UID]client.Object)
	err := meta.EachListItem(list, func(item runtime.Object) error {
		object := item.DeepCopyObject().(client.Object)
		all[object.GetUID()] = object
		return nil
	})
	if err != nil {
		return false, err
	}
	if *last = missing(all); *last == "" {
		return true, nil
	}
	from := &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}}
	w, err := api.Watch(ctx, list, append([]client.ListOption{from}, options...)...)
	if err != nil {
		return false, err
	}
	defer w.Stop()
	for {
		var event watch.Event
		var open bool
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case event, open = <-w.ResultChan():
		}
		object, ok := event.Object.(client.Object)
		switch {
		case !open:
			return false, nil
		case event.Type == watch.Error:
			return false, apierrors.FromObject(event.Object)
		case !ok:
		case event.Type == watch.Deleted:
			delete(all, object.GetUID())
		default:
			all[object.GetUID()] = object
		}
		if *last = missing(all); *last == "" {
			return true, nil
		}
	}
}
