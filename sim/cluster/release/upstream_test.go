//go:build upstream

package release_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/cluster/envtest"
	"github.com/layersim/layersim/sim/cluster/release"
)

// folderVariable names a folder with one folder a release, <name>, that holds upstream's programs and its templates.
const folderVariable = "LAYERSIM_UPSTREAM"

// TestUpstream runs upstream's own programs on a control plane with what this package says that they need, through a plain
// HTTP endpoint with a path, as the recording proxy's is: pools are rendered, the builder leads, and a MachineOSConfig leads
// to a MachineOSBuild and a Job whose pods look as the package says.
func TestUpstream(t *testing.T) {
	folder := os.Getenv(folderVariable)
	if folder == "" {
		t.Fatalf("%s is not set: it names a folder with main/machine-os-builder, main/machine-config-controller, "+
			"main/templates and the like for each release to try", folderVariable)
	}
	ran := false
	for _, name := range release.Names() {
		if _, err := os.Stat(filepath.Join(folder, name)); errors.Is(err, os.ErrNotExist) {
			continue
		}
		ran = true
		t.Run(name, func(t *testing.T) { tryRelease(t, name, filepath.Join(folder, name)) })
	}
	if !ran {
		t.Fatalf("%s=%s has a folder for none of %v", folderVariable, folder, release.Names())
	}
}

func tryRelease(t *testing.T, name, folder string) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	r, err := release.For(name)
	must(t, err)
	crds, err := r.CRDs()
	must(t, err)
	plane, err := envtest.Start(ctx, envtest.Options{CRDs: crds, Controllers: envtest.Controllers, Scheduler: true})
	must(t, err)
	t.Cleanup(func() { must(t, plane.Stop()) })

	scheme := runtime.NewScheme()
	must(t, clientgoscheme.AddToScheme(scheme))
	must(t, mcfgv1.Install(scheme))
	admin, err := client.New(plane.Config, client.Options{Scheme: scheme})
	must(t, err)

	stamp, err := release.ControllersVersion(ctx, folder)
	must(t, err)
	base := "127.0.0.1:5000/os/base@sha256:" + strings.Repeat("ab", 32)
	must(t, release.Install(ctx, admin, r.Objects(release.Parameters{
		BaseImage: base, Controllers: stamp, PullSecret: []byte(`{"auths":{}}`),
	})))
	for _, pool := range []string{"master", "worker", "layered"} {
		must(t, admin.Create(ctx, release.Pool(pool)))
	}
	for _, secret := range []string{"pull", "push"} {
		must(t, admin.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: secret},
			Type:       corev1.SecretTypeDockerConfigJson,
			Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"127.0.0.1:5000":{"auth":"YTpi"}}}`)},
		}))
	}

	scratch := t.TempDir()
	run := release.Run{Templates: filepath.Join(folder, "templates"), Scratch: scratch, KubeConfig: map[string]string{}}
	for _, p := range []string{release.Builder, release.Controller} {
		run.KubeConfig[p] = filepath.Join(scratch, p+".kubeconfig")
		must(t, writeKubeConfig(run.KubeConfig[p], endpoint(t, plane.Config, p)))
	}
	for _, p := range r.Processes(run) {
		start(t, ctx, p, folder)
	}

	until(t, ctx, "pools are rendered", func() (bool, string) {
		var pools mcfgv1.MachineConfigPoolList
		must(t, admin.List(ctx, &pools))
		var missing []string
		for _, p := range pools.Items {
			if p.Status.Configuration.Name == "" {
				missing = append(missing, fmt.Sprintf("%s: %+v", p.Name, p.Status.Conditions))
			}
		}
		return len(pools.Items) == 3 && missing == nil, strings.Join(missing, "\n")
	})
	for _, p := range r.Processes(run) {
		until(t, ctx, p.Name+" holds its lease", func() (bool, string) {
			var lease coordinationv1.Lease
			err := admin.Get(ctx, p.Lease, &lease)
			return err == nil && ptr.Deref(lease.Spec.HolderIdentity, "") != "", fmt.Sprint(err)
		})
	}

	must(t, admin.Create(ctx, &mcfgv1.MachineOSConfig{
		ObjectMeta: metav1.ObjectMeta{Name: "layered"},
		Spec: mcfgv1.MachineOSConfigSpec{
			MachineConfigPool:       mcfgv1.MachineConfigPoolReference{Name: "layered"},
			ImageBuilder:            mcfgv1.MachineOSImageBuilder{ImageBuilderType: mcfgv1.JobBuilder},
			BaseImagePullSecret:     &mcfgv1.ImageSecretObjectReference{Name: "pull"},
			RenderedImagePushSecret: mcfgv1.ImageSecretObjectReference{Name: "push"},
			RenderedImagePushSpec:   "127.0.0.1:5000/ocl/layered:latest",
			Containerfile: []mcfgv1.MachineOSContainerfile{{
				ContainerfileArch: mcfgv1.NoArch,
				Content:           "FROM configs AS final\nRUN rpm-ostree install tree && ostree container commit\n",
			}},
		},
	}))
	until(t, ctx, "a MachineOSBuild appears", func() (bool, string) {
		var builds mcfgv1.MachineOSBuildList
		must(t, admin.List(ctx, &builds))
		return len(builds.Items) == 1 && strings.HasPrefix(builds.Items[0].Name, "layered-"), fmt.Sprint(len(builds.Items))
	})
	var jobs batchv1.JobList
	until(t, ctx, "a Job appears", func() (bool, string) {
		must(t, admin.List(ctx, &jobs, client.InNamespace(layering.Namespace)))
		return len(jobs.Items) == 1, fmt.Sprint(len(jobs.Items))
	})
	checkPod(t, r, jobs.Items[0].Spec.Template.Spec)
	until(t, ctx, "a pod appears", func() (bool, string) {
		var pods corev1.PodList
		must(t, admin.List(ctx, &pods, client.InNamespace(layering.Namespace)))
		return len(pods.Items) == 1, fmt.Sprint(len(pods.Items))
	})
	if out := os.Getenv("LAYERSIM_UPSTREAM_OBJECTS"); out != "" {
		dump(t, ctx, admin, filepath.Join(out, name))
	}
}

// checkPod compares a build pod with what the package says of it.
func checkPod(t *testing.T, r *release.Release, spec corev1.PodSpec) {
	t.Helper()
	names := func(list []corev1.Container) (names []string) {
		for _, c := range list {
			names = append(names, c.Name)
		}
		slices.Sort(names)
		return names
	}
	want, wantInit := []string{"image-build", "wait-for-done"}, []string(nil)
	if r.InitContainer {
		want, wantInit = []string{"create-digest-configmap"}, []string{"image-build"}
	}
	got, gotInit := names(spec.Containers), names(spec.InitContainers)
	if !slices.Equal(got, want) || !slices.Equal(gotInit, wantInit) {
		t.Errorf("build pod has containers %v, init containers %v; want %v, %v", got, gotInit, want, wantInit)
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, variable := range []string{
			"TAG", "BASE_IMAGE_PULL_CREDS", "FINAL_IMAGE_PUSH_CREDS", "DIGEST_CONFIGMAP_NAME", "DIGEST_CONFIGMAP_LABELS",
		} {
			if !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == variable && e.Value != "" }) {
				t.Errorf("container %s has no environment variable %s", c.Name, variable)
			}
		}
		for _, path := range []string{
			"/tmp/containerfile", "/tmp/machineconfig", "/tmp/base-image-pull-creds", "/tmp/final-image-push-creds", "/tmp/done",
		} {
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == path }) {
				t.Errorf("container %s has nothing mounted at %s", c.Name, path)
			}
		}
	}
}

// start runs a program until the test ends. A program that ends earlier fails the test.
func start(t *testing.T, ctx context.Context, p release.Process, folder string) {
	t.Helper()
	cmd, err := p.Command(context.WithoutCancel(ctx), folder)
	must(t, err)
	output := &log{}
	cmd.Stdout, cmd.Stderr = output, output
	must(t, cmd.Start())
	done := make(chan struct{})
	stopping := make(chan struct{})
	go func() {
		defer close(done)
		err := cmd.Wait()
		select {
		case <-stopping:
		default:
			t.Errorf("%s ended: %v", p.Name, err)
		}
	}()
	t.Cleanup(func() {
		close(stopping)
		_ = cmd.Process.Kill()
		<-done
		if t.Failed() {
			t.Logf("%s:\n%s", p.Name, output)
		}
		if text := output.String(); !strings.Contains(text, p.Ready) {
			t.Errorf("%s never said %q", p.Name, p.Ready)
		}
		if out := os.Getenv("LAYERSIM_UPSTREAM_OBJECTS"); out != "" {
			must(t, os.MkdirAll(out, 0o755))
			must(t, os.WriteFile(filepath.Join(out, filepath.Base(folder)+"-"+p.Name+".log"), []byte(output.String()), 0o644))
		}
	})
}

type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// endpoint serves the API at a plain HTTP URL with a path.
func endpoint(t *testing.T, config *rest.Config, name string) string {
	t.Helper()
	target, err := url.Parse(config.Host)
	must(t, err)
	transport, err := rest.TransportFor(config)
	must(t, err)
	proxy := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
	}
	server := &http.Server{Handler: http.StripPrefix("/"+name, proxy)}
	listener, err := listen()
	must(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + listener.Addr().String() + "/" + name
}

func writeKubeConfig(path, server string) error {
	return clientcmd.WriteToFile(api.Config{
		Clusters:       map[string]*api.Cluster{"c": {Server: server}},
		Contexts:       map[string]*api.Context{"c": {Cluster: "c"}},
		CurrentContext: "c",
	}, path)
}

func until(t *testing.T, ctx context.Context, what string, done func() (bool, string)) {
	t.Helper()
	began, tick := time.Now(), time.NewTicker(200*time.Millisecond)
	defer tick.Stop()
	for {
		ok, state := done()
		if ok {
			t.Logf("%s after %.1f s", what, time.Since(began).Seconds())
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within the time; now: %s", what, state)
		case <-tick.C:
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
