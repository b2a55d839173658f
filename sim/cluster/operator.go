package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
)

// nodePullSecret holds the credentials that nodes pull images of the internal registry with. On a real cluster it is an
// imagePullSecret of ServiceAccount machine-os-puller.
const nodePullSecret = "machine-os-puller"

// newOperator models what the machine-config-operator itself does for layering: it keeps the nodes' pull credentials in
// the ControllerConfig, and the copy of the global pull secret that builds pull the base image with.
func newOperator() component.Component {
	one := func(context.Context, client.Reader, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: layering.ControllerConfigName}}}
	}
	secrets := func(before, after client.Object) bool {
		o := after
		if o == nil {
			o = before
		}
		switch (client.ObjectKey{Namespace: o.GetNamespace(), Name: o.GetName()}) {
		case globalPullSecret, client.ObjectKey{Namespace: layering.Namespace, Name: nodePullSecret}:
			return true
		}
		return false
	}
	return component.Component{
		Name: "machine-config-operator",
		Watches: []component.Watch{
			{Object: &corev1.Secret{}, Map: one, When: secrets},
			{Object: &mcfgv1.ControllerConfig{}, Map: one, When: func(before, _ client.Object) bool { return before == nil }},
		},
		New: func(env component.Env) (reconcile.Reconciler, error) { return &operator{env}, nil },
	}
}

var globalPullSecret = client.ObjectKey{Namespace: "openshift-config", Name: "pull-secret"}

type operator struct{ component.Env }

func (o *operator) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	if err := o.copyGlobal(ctx); err != nil {
		return reconcile.Result{}, fmt.Errorf("copy global pull secret: %w", err)
	}
	if err := o.nodeSecret(ctx); err != nil {
		return reconcile.Result{}, fmt.Errorf("give nodes their pull secret: %w", err)
	}
	return reconcile.Result{}, nil
}

// copyGlobal keeps global-pull-secret-copy like openshift-config/pull-secret.
func (o *operator) copyGlobal(ctx context.Context) error {
	var global, copied corev1.Secret
	if err := o.Client.Get(ctx, globalPullSecret, &global); err != nil {
		return client.IgnoreNotFound(err)
	}
	err := o.Live.Get(ctx, client.ObjectKey{Namespace: layering.Namespace, Name: layering.GlobalPullSecretCopy}, &copied)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err != nil {
		return o.Client.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: layering.GlobalPullSecretCopy},
			Type:       global.Type, Data: global.Data,
		})
	}
	if maps.EqualFunc(copied.Data, global.Data, bytes.Equal) {
		return nil
	}
	copied.Data = global.Data
	return o.Client.Update(ctx, &copied)
}

// nodeSecret merges the nodes' own credentials over the global ones into ControllerConfig.spec.internalRegistryPullSecret.
func (o *operator) nodeSecret(ctx context.Context) error {
	var global, own corev1.Secret
	var cc mcfgv1.ControllerConfig
	if err := o.Live.Get(ctx, client.ObjectKey{Name: layering.ControllerConfigName}, &cc); err != nil {
		return client.IgnoreNotFound(err)
	}
	auths := map[string]any{}
	for _, s := range []struct {
		key    client.ObjectKey
		secret *corev1.Secret
	}{{globalPullSecret, &global}, {client.ObjectKey{Namespace: layering.Namespace, Name: nodePullSecret}, &own}} {
		if err := o.Client.Get(ctx, s.key, s.secret); client.IgnoreNotFound(err) != nil {
			return err
		}
		found, err := authsOf(s.secret)
		if err != nil {
			return fmt.Errorf("secret %s: %w", s.key, err)
		}
		maps.Copy(auths, found)
	}
	merged, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		return err
	}
	if bytes.Equal(cc.Spec.InternalRegistryPullSecret, merged) {
		return nil
	}
	patch := client.MergeFrom(cc.DeepCopy())
	cc.Spec.InternalRegistryPullSecret = merged
	return o.Client.Patch(ctx, &cc, patch)
}

// authsOf reads the credentials of both kinds of pull secrets. An empty secret has none.
func authsOf(s *corev1.Secret) (map[string]any, error) {
	if data, ok := s.Data[corev1.DockerConfigKey]; ok {
		var auths map[string]any
		err := json.Unmarshal(data, &auths)
		return auths, err
	}
	data, ok := s.Data[corev1.DockerConfigJsonKey]
	if !ok {
		return nil, nil
	}
	var c struct {
		Auths map[string]any `json:"auths"`
	}
	err := json.Unmarshal(data, &c)
	return c.Auths, err
}
