// Command machine-os-builder runs the build controller of on-cluster image layering.
//
//	machine-os-builder start [--kubeconfig FILE] [--metrics-listen-address ADDRESS]
//	machine-os-builder create-digest-configmap --configmap-name NAME --digestfile FILE --labels K=V,...
//	machine-os-builder version
//
// The second form is what build pods hand their image's digest back with.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/layersim/layersim/controllers/build"
	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/controllers/manager"
)

// The Lease. A creation can't be limited to a name.
//
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=openshift-machine-config-operator,resources=leases,resourceNames=machine-os-builder,verbs=get;update
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=openshift-machine-config-operator,resources=leases,verbs=create

func main() {
	program := manager.Program{
		Name:    "machine-os-builder",
		Short:   "Builds the operating system images of MachineOSConfigs",
		Version: os.Getenv("RELEASE_VERSION"),
		Components: func() ([]component.Component, error) {
			m, err := newBuildMetrics(metrics.Registry)
			if err != nil {
				return nil, err
			}
			return []component.Component{build.New(build.Options{Metrics: m})}, nil
		},
		Commands: []*cobra.Command{digestCommand()},
	}
	os.Exit(program.Main())
}

// digestCommand writes a ConfigMap with an image's digest.
func digestCommand() *cobra.Command {
	var name, file, labels, namespace string
	cmd := &cobra.Command{
		Use: "create-digest-configmap", Short: "Write an image's digest to a ConfigMap", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := manager.RESTConfig("")
			if err != nil {
				return fmt.Errorf("load kubeconfig: %w", err)
			}
			c, err := client.New(config, client.Options{})
			if err != nil {
				return fmt.Errorf("create client: %w", err)
			}
			return writeDigest(cmd.Context(), c, namespace, name, file, labels)
		},
	}
	cmd.Flags().StringVar(&name, "configmap-name", "", "name of the ConfigMap")
	cmd.Flags().StringVar(&file, "digestfile", "", "file that holds the digest")
	cmd.Flags().StringVar(&labels, "labels", "", "labels of the ConfigMap: key=value, separated by commas")
	cmd.Flags().StringVar(&namespace, "namespace", layering.Namespace, "namespace of the ConfigMap")
	for _, flag := range []string{"configmap-name", "digestfile"} {
		if err := cmd.MarkFlagRequired(flag); err != nil {
			cmd.RunE = func(*cobra.Command, []string) error { return err }
		}
	}
	return cmd
}

// writeDigest creates or updates the ConfigMap name with the digest that a file holds.
func writeDigest(ctx context.Context, c client.Client, namespace, name, file, labels string) error {
	content, err := os.ReadFile(file) //nolint:gosec // the caller's own file
	if err != nil {
		return fmt.Errorf("read digest: %w", err)
	}
	digest := strings.TrimSpace(string(content))
	if !strings.HasPrefix(digest, "sha256:") {
		return fmt.Errorf("digest file %s holds no digest", file)
	}
	pairs := map[string]string{}
	for pair := range strings.SplitSeq(labels, ",") {
		if key, value, _ := strings.Cut(pair, "="); key != "" {
			pairs[key] = value
		}
	}
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	_, err = controllerutil.CreateOrUpdate(ctx, c, object, func() error {
		if object.Labels == nil {
			object.Labels = map[string]string{}
		}
		maps.Copy(object.Labels, pairs)
		object.Data = map[string]string{"digest": digest}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write configmap %s: %w", name, err)
	}
	return nil
}
