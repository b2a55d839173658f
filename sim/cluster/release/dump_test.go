//go:build upstream

package release_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// dump writes what the controllers made, to look at.
func dump(t *testing.T, ctx context.Context, c client.Client, folder string) {
	t.Helper()
	must(t, os.MkdirAll(folder, 0o755))
	for _, kind := range []schema.GroupVersionKind{
		{Version: "v1", Kind: "ConfigMap"}, {Version: "v1", Kind: "Secret"}, {Version: "v1", Kind: "Pod"},
		{Group: "batch", Version: "v1", Kind: "Job"},
		{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: "MachineOSBuild"},
		{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: "MachineOSConfig"},
		{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: "MachineConfigPool"},
		{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: "MachineConfig"},
		{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: "ControllerConfig"},
	} {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(kind)
		must(t, c.List(ctx, list))
		for i := range list.Items {
			o := &list.Items[i]
			text, err := yaml.Marshal(o.Object)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(folder, strings.ToLower(kind.Kind)+"-"+o.GetName()+".yaml"), text, 0o644))
		}
	}
}
