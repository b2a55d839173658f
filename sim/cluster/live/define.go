package live

import (
	"context"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// definitionLimit is how long it may take until a kind is served.
const definitionLimit = time.Minute

// Define installs CustomResourceDefinitions and waits until their kinds can be listed: for a moment after its definition is
// established, a kind's storage is still being initialized.
func Define(ctx context.Context, config *rest.Config, crds []*apiextensionsv1.CustomResourceDefinition) error {
	copies := make([]*apiextensionsv1.CustomResourceDefinition, len(crds))
	for i, crd := range crds {
		copies[i] = crd.DeepCopy()
	}
	// An empty scheme, because nothing is converted.
	_, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{
		CRDs: copies, Scheme: runtime.NewScheme(), MaxTime: definitionLimit, PollInterval: 20 * time.Millisecond,
	})
	if err != nil {
		return fmt.Errorf("install CustomResourceDefinitions: %w", err)
	}
	reader, err := client.New(config, client.Options{})
	if err != nil {
		return err
	}
	for _, crd := range crds {
		for _, v := range crd.Spec.Versions {
			if !v.Served {
				continue
			}
			l := &unstructured.UnstructuredList{}
			l.SetGroupVersionKind(schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.ListKind})
			var last error
			err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, definitionLimit, true, func(ctx context.Context) (bool, error) {
				last = reader.List(ctx, l, client.Limit(1))
				return last == nil, nil
			})
			if err != nil {
				return fmt.Errorf("wait for %s %s: %w (%v)", crd.Name, v.Name, err, last)
			}
		}
	}
	return nil
}
