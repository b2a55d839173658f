package builder

import (
	"context"
	"strings"
	"testing"
	"time"

	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/build"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/controllers/manager"
	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/kube"
	"github.com/layersim/layersim/sim/registry"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/world"
)

// TestBuildController runs the pods that the real build controller asks for: one that succeeds, and, with an
// unreachable repository, four that fail.
func TestBuildController(t *testing.T) {
	const host = "image-registry.openshift-image-registry.svc:5000"
	for _, tt := range []struct {
		name      string
		reachable bool
		condition mcfgv1.BuildProgress
		logs      int // of image-build
	}{
		{"success", true, mcfgv1.MachineOSBuildSucceeded, 1},
		{"unreachable repository", false, mcfgv1.MachineOSBuildFailed, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scheme, err := manager.NewScheme()
			must(t, err)
			must(t, machinev1beta1.Install(scheme))
			clock := world.NewClock(time.Date(2025, 2, 12, 19, 0, 0, 0, time.UTC))
			s := store.New(store.Options{Clock: clock, Scheme: scheme, Seed: 1})
			w := world.New(world.Options{Store: s, Clock: clock, Seed: 1})
			c := s.Client(store.ClientOptions{Author: "admin"})
			create := func(o client.Object) { t.Helper(); must(t, c.Create(context.Background(), o)) }

			images := registry.New(registry.Options{Hosts: []string{host, "quay.io"}})
			account := registry.Account{Name: "all", Password: "password", Push: []string{"*"}}
			images.SetAccount(account)
			digest, err := images.PutImage("quay.io/openshift/base:4.18", baseImage(t))
			must(t, err)
			base := "quay.io/openshift/base@" + digest

			crds, err := fixtures.CRDs()
			must(t, err)
			for _, crd := range crds {
				create(crd.DeepCopy())
			}
			for _, ns := range []string{"default", layering.Namespace} {
				create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
			}
			create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker-0"}, Status: corev1.NodeStatus{
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}})
			create(&corev1.Secret{ // the older form, which the controller converts
				ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: "push"}, Type: corev1.SecretTypeDockercfg,
				Data: map[string][]byte{corev1.DockerConfigKey: registry.DockerCfg(host, account)}})
			create(&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: layering.GlobalPullSecretCopy}, Type: corev1.SecretTypeDockerConfigJson,
				Data: map[string][]byte{corev1.DockerConfigJsonKey: registry.DockerConfigJSON("quay.io", account)}})
			create(configMap(layering.ImagesConfigMap, map[string]string{"images.json": `{"machineConfigOperator":"quay.io/mco@sha256:1"}`}))
			create(&mcfgv1.ControllerConfig{
				ObjectMeta: metav1.ObjectMeta{Name: layering.ControllerConfigName},
				Spec: mcfgv1.ControllerConfigSpec{AdditionalTrustBundle: []byte("ca"), KubeAPIServerServingCAData: []byte("ca"),
					RootCAData: []byte("ca"), CloudProviderCAData: []byte("ca"), Images: map[string]string{}}})
			rendered := &mcfgv1.MachineConfig{ObjectMeta: metav1.ObjectMeta{Name: "rendered-layered-1", Annotations: map[string]string{
				layering.ReleaseImageVersion: "4.18.1", layering.GeneratedByController: "v1"}}}
			rendered.Spec.OSImageURL = base
			rendered.Spec.Config = runtime.RawExtension{Raw: []byte(`{"ignition":{"version":"3.4.0"}}`)}
			create(rendered)
			pool := &mcfgv1.MachineConfigPool{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}
			pool.Spec.Configuration.Name = rendered.Name
			create(pool)
			config := &mcfgv1.MachineOSConfig{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}
			config.Spec = mcfgv1.MachineOSConfigSpec{
				MachineConfigPool:       mcfgv1.MachineConfigPoolReference{Name: "layered"},
				ImageBuilder:            mcfgv1.MachineOSImageBuilder{ImageBuilderType: mcfgv1.JobBuilder},
				RenderedImagePushSecret: mcfgv1.ImageSecretObjectReference{Name: "push"},
				RenderedImagePushSpec:   host + "/ocl/os-images:latest",
				Containerfile:           []mcfgv1.MachineOSContainerfile{{ContainerfileArch: mcfgv1.NoArch, Content: user}},
			}
			create(config)

			var logs []history.Pod
			repositories := DefaultRepositories()
			repositories.SetReachable("*", tt.reachable)
			pods := New(Options{Transport: images.Transport, Repositories: repositories, Observe: func(p history.Pod) { logs = append(logs, p) }})
			_, err = w.Start("kube", 1, kube.JobController(), kube.GarbageCollector(kube.Options{}), kube.Scheduler(), pods)
			must(t, err)
			_, err = w.Start("machine-os-builder", 1, build.New(build.Options{Transport: images.Transport("machine-os-builder")}))
			must(t, err)

			b := &bench{t: t, w: w}
			b.run(20 * time.Minute)

			var builds mcfgv1.MachineOSBuildList
			must(t, c.List(context.Background(), &builds))
			if len(builds.Items) != 1 {
				t.Fatalf("%d MachineOSBuilds, want 1", len(builds.Items))
			}
			mosb, reached := builds.Items[0], false
			for _, condition := range mosb.Status.Conditions {
				reached = reached || condition.Type == string(tt.condition) && condition.Status == metav1.ConditionTrue
			}
			if !reached {
				t.Errorf("condition %s is not True: %+v\n%+v", tt.condition, mosb.Status.Conditions, logs)
			}
			n := 0
			for _, l := range logs {
				if l.Container == ContainerBuild {
					n++
				}
			}
			if n != tt.logs {
				t.Errorf("%d builds, want %d", n, tt.logs)
			}
			if !tt.reachable {
				return
			}
			img, err := images.Image(string(mosb.Status.DigestedImagePushSpec))
			must(t, err)
			got, err := Inspect(img)
			must(t, err)
			if got.Base != base || got.MachineConfig != rendered.Name || got.Pool != "layered" {
				t.Errorf("labels: %+v", got)
			}
			layers, err := img.Layers()
			must(t, err)
			current := ""
			must(t, layerFiles(layers[len(layers)-1], func(name string, f file) bool {
				if name == "/etc/machine-config-daemon/currentconfig" {
					current = string(f.data)
				}
				return true
			}))
			if !strings.Contains(current, `"rendered-layered-1"`) {
				t.Errorf("currentconfig: %q", current)
			}
		})
	}
}
