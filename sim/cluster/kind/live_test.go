//go:build kind

package kind_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/layersim/layersim/sim/cluster/kind"
	"github.com/layersim/layersim/sim/history"
)

// TestMain makes the test's own program the only one in the image that the test loads.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		serve(os.Args[2])
		return
	}
	log.SetLogger(log.Log.WithSink(log.NullLogSink{})) // or it complains that nobody did
	os.Exit(m.Run())
}

// serve answers with what it gets from the given address, or with "pod" without one.
func serve(from string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := http.Server{Addr: ":8080", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if from == "-" {
			fmt.Fprint(w, "pod")
			return
		}
		client := http.Client{Timeout: 5 * time.Second}
		response, err := client.Get(from)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		io.Copy(w, response.Body)
	})}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	fmt.Println("serving")
	fmt.Println(server.ListenAndServe())
}

// name is not the default one, so that a cluster in use is left alone.
const name = "layersim-test"

func TestCluster(t *testing.T) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	say := func(step string) { t.Logf("%5.1f s  %s", time.Since(start).Seconds(), step) }

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "serve.tar")
	image := kind.Image{Tag: "layersim.io/serve:test", Files: map[string]string{"/serve": self}, Entrypoint: []string{"/serve", "serve"}}
	if err := kind.WriteImage(archive, image); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := kind.Down(ctx, name, say); err != nil {
			t.Error(err)
		}
		if got := output(t, "docker", "ps", "--all", "--quiet", "--filter", "label=io.x-k8s.kind.cluster="+name); got != "" {
			t.Errorf("containers are left: %s", got)
		}
		if names, err := kind.List(); err != nil || strings.Contains(strings.Join(names, " "), name) {
			t.Errorf("List after Down: %v, %v", names, err)
		}
	})
	cluster, err := kind.Up(ctx, kind.Options{Name: name, Archives: []string{archive}, Progress: say})
	if err != nil {
		t.Fatal(err)
	}
	say("up")
	api, err := kubernetes.NewForConfig(cluster.Config)
	if err != nil {
		t.Fatal(err)
	}

	// A pod that serves, a service before it, and a pod that asks the service by its name.
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "serve"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "serve"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
	}}
	if _, err := api.CoreV1().Services("default").Create(ctx, service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for app, from := range map[string]string{"serve": "-", "ask": "http://serve.default.svc", "leave": "http://10.96.200.200", "lost": "http://example.com"} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: app, Labels: map[string]string{"app": app}}, Spec: corev1.PodSpec{
			NodeSelector: map[string]string{history.World: "true"},
			Containers: []corev1.Container{{
				Name: app, Image: image.Tag, Args: []string{from}, ImagePullPolicy: corev1.PullNever,
				ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
					TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)},
				}},
			}},
		}}
		if _, err := api.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	watch, err := api.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	ready := make(map[string]bool)
	for event := range watch.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			t.Fatalf("watch pods: %v", event.Object)
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				ready[pod.Name] = true
			}
		}
		if len(ready) == 4 {
			break
		}
	}
	say("four pods are ready")
	get := func(pod string) string {
		body, err := api.CoreV1().Pods("default").ProxyGet("http", pod, "8080", "/", nil).DoRaw(ctx)
		if err != nil {
			return string(body) + err.Error()
		}
		return string(body)
	}
	// kube-proxy follows the pods of a service, but not at once.
	got := get("ask")
	for deadline := time.Now().Add(20 * time.Second); got != "pod" && time.Now().Before(deadline); got = get("ask") {
		time.Sleep(200 * time.Millisecond)
	}
	if got != "pod" {
		t.Errorf("a service by its name: %q, want %q", got, "pod")
	}
	say("a service is reached by its name")
	// kube-proxy looks at all that it has made when the zone of its node changes, and once an hour.
	syncs := func() string {
		metrics, err := cluster.Exec(ctx, "bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/10249; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3`)
		if err != nil {
			t.Fatal(err)
		}
		_, count, _ := strings.Cut(metrics, "\nkubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} ")
		count, _, _ = strings.Cut(count, "\n")
		return count
	}
	before := syncs()
	zone := []byte(`{"metadata": {"labels": {"` + corev1.LabelTopologyZone + `": "z"}}}`)
	if _, err := api.CoreV1().Nodes().Patch(ctx, cluster.Node, types.MergePatchType, zone, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); syncs() == before && time.Now().Before(deadline); {
		time.Sleep(200 * time.Millisecond)
	}
	if after := syncs(); before == "" || after == before {
		t.Errorf("kube-proxy has looked at all that it has made %q times, and then %q times", before, after)
	}
	if got := get("ask"); got != "pod" {
		t.Errorf("a service by its name, after kube-proxy has looked at all that it has made: %q, want %q", got, "pod")
	}
	say("kube-proxy keeps what it has made")
	if got := get("lost"); !strings.Contains(got, "no such host") {
		t.Errorf("a name outside the cluster: %q, want that it doesn't exist", got)
	}
	// kube-proxy drops what is for a service address that nobody has; without it, as at first, layersim's rule has to.
	if _, err := cluster.Exec(ctx, "nft", "delete", "table", "ip", "kube-proxy"); err != nil {
		t.Error(err)
	}
	rejected := func(answer string) bool {
		return strings.Contains(answer, "refused") || strings.Contains(answer, "unreachable")
	}
	if got := get("leave"); !rejected(got) {
		t.Errorf("10.96.200.200 from a pod: %q, want it to be rejected", got)
	}
	for _, target := range []string{"10.96.200.200", "192.0.2.1"} {
		got, err := cluster.Exec(ctx, "bash", "-c", "timeout 3 bash -c '</dev/tcp/"+target+"/80' 2>&1 || echo $?")
		if err != nil || !rejected(got) {
			t.Errorf("%s from the node: %q, %v; want it to be rejected", target, got, err)
		}
	}
	say("isolated")

	// Nothing answers there, but it is where the node asks.
	if err := cluster.Registry("registry.example.svc:5000", "https://127.0.0.1:5001", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Exec(ctx, "crictl", "pull", "registry.example.svc:5000/a:b"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:5001") {
		t.Errorf("pull from a configured registry: %v, want the endpoint to be asked", err)
	}

	nodes, err := api.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 || nodes.Items[0].Name != cluster.Node {
		t.Fatalf("nodes: %v, %v; want only %s", nodes, err, cluster.Node)
	}
	for _, role := range []string{"worker", "master"} {
		if _, ok := nodes.Items[0].Labels["node-role.kubernetes.io/"+role]; ok {
			t.Errorf("the node would be a member of the machine config pool %s", role)
		}
	}

	again, err := kind.Up(ctx, kind.Options{Name: name, Progress: say})
	if err != nil || !again.Adopted || again.Config.Host != cluster.Config.Host {
		t.Errorf("Up of a cluster that is there: %+v, %v; want it adopted", again, err)
	}
}

// A cluster of kind that somebody else made is neither used nor deleted.
func TestForeign(t *testing.T) {
	const name = "layersim-foreign"
	id := output(t, "docker", "create", "--label=io.x-k8s.kind.cluster="+name, "--network=none", kind.NodeImage)
	t.Cleanup(func() { output(t, "docker", "rm", id) })
	if _, err := kind.Up(t.Context(), kind.Options{Name: name}); !errors.Is(err, kind.ErrForeign) {
		t.Errorf("Up: %v, want ErrForeign", err)
	}
	if err := kind.Down(t.Context(), name, nil); !errors.Is(err, kind.ErrForeign) {
		t.Errorf("Down: %v, want ErrForeign", err)
	}
	if got := output(t, "docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", "id="+id); got != id {
		t.Error("the container is gone")
	}
}

// An Up that is interrupted leaves nothing running.
func TestInterrupted(t *testing.T) {
	const name = "layersim-interrupted"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := kind.Up(ctx, kind.Options{Name: name, Progress: func(step string) {
		t.Log(step)
		if strings.HasPrefix(step, "writing configuration") {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Up: %v, want it cancelled", err)
	}
	if got := output(t, "docker", "ps", "--all", "--quiet", "--filter", "label=io.x-k8s.kind.cluster="+name); got != "" {
		t.Errorf("containers are left: %s", got)
	}
	if err := kind.Down(t.Context(), name, func(step string) { t.Log(step) }); err != nil {
		t.Error(err)
	}
}

func output(t *testing.T, command string, arguments ...string) string {
	t.Helper()
	out, err := exec.Command(command, arguments...).Output()
	if err != nil {
		t.Fatalf("%s %s: %v", command, strings.Join(arguments, " "), err)
	}
	return strings.TrimSpace(string(out))
}
