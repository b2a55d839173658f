package kind

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// The node image that is looked for is the one that is built.
func TestVersion(t *testing.T) {
	for _, script := range []string{"nodeimage/kubernetes", "controlplane"} {
		file := filepath.Join("..", "..", "..", "hack", script, "go.mod")
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`k8s\.io/kubernetes (v\S+)`).FindSubmatch(data)
		if m == nil || string(m[1]) != Version {
			t.Errorf("%s requires Kubernetes %s, not %s", file, m, Version)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, cgroupV1 := range []bool{false, true} {
		c := config(Options{Name: "a", Image: "i"}, "/dir", cgroupV1)
		patches := strings.Join(c.KubeadmConfigPatches, "---\n")
		if got := strings.Contains(patches, "failCgroupV1: false"); got != cgroupV1 {
			t.Errorf("cgroup v1 %v: kubelet accepts it: %v", cgroupV1, got)
		}
		if !strings.Contains(patches, "node-monitor-grace-period, value: 24h") {
			t.Error("simulated nodes would be NotReady after 40 s")
		}
		for _, m := range c.Nodes[0].ExtraMounts {
			if !strings.HasPrefix(m.HostPath, "/dir/") || !m.Readonly {
				t.Errorf("mount %+v: want it below /dir, and read-only", m)
			}
		}
	}
}

func TestWriteImage(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("content"), 0o755); err != nil {
		t.Fatal(err)
	}
	i := Image{
		Tag: "layersim/agent:dev", Files: map[string]string{"/usr/bin/agent": program, "/b": program}, Folders: []string{"/tmp"},
		Entrypoint: []string{"/usr/bin/agent"}, Env: []string{"A=b"},
	}
	first, second := filepath.Join(dir, "1.tar"), filepath.Join(dir, "2.tar")
	for _, archive := range []string{first, second} {
		if err := WriteImage(archive, i); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := os.ReadFile(first)
	b, _ := os.ReadFile(second)
	if !bytes.Equal(a, b) {
		t.Error("two archives of one image differ")
	}

	image, err := tarball.ImageFromPath(first, nil)
	if err != nil {
		t.Fatal(err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"linux", runtime.GOARCH, "/usr/bin/agent", "A=b"},
		[]string{file.OS, file.Architecture, file.Config.Entrypoint[0], file.Config.Env[0]}); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	type entry struct {
		Name, Content string
		Mode          int64
		Link          string
	}
	var got []entry
	content := mutate.Extract(image)
	defer content.Close()
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, entry{h.Name, string(data), h.Mode, h.Linkname})
	}
	want := []entry{{"tmp", "", 0o1777, ""}, {"usr", "", 0o755, ""}, {"usr/bin", "", 0o755, ""}, {"b", "content", 0o755, ""}, {"usr/bin/agent", "", 0o755, "b"}}
	for i := range got {
		got[i].Name = strings.TrimSuffix(got[i].Name, "/")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}

	for _, bad := range []Image{
		{Tag: "Not A Tag"}, {Tag: "a:b", Files: map[string]string{"relative": program}}, {Tag: "a:b", Files: map[string]string{"/a": dir}},
	} {
		if err := WriteImage(filepath.Join(dir, "bad.tar"), bad); err == nil {
			t.Errorf("image %+v was written", bad)
		}
	}
}

// fakeDocker is a client of Docker that knows one container of the cluster "taken", which mounts the folder given.
func fakeDocker(t *testing.T, mount string) (removed func() bool) {
	t.Helper()
	dir := t.TempDir()
	mark := filepath.Join(dir, "removed")
	script := `#!/bin/sh
case "$*" in
"ps "*cluster=taken) [ -e ` + mark + ` ] || echo 1234 ;;
ps*) ;;
inspect*) echo "/taken-control-plane true /lib/modules ` + mount + `" ;;
network*) ;;
rm*) touch ` + mark + ` ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	return func() bool {
		_, err := os.Stat(mark)
		return err == nil
	}
}

func TestDown(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	dir := filepath.Join(cache, "layersim", "kind", "taken")

	t.Run("foreign", func(t *testing.T) {
		removed := fakeDocker(t, "/elsewhere/layersim/kind/taken/certs.d")
		if err := Down(t.Context(), "taken", nil); !errors.Is(err, ErrForeign) || removed() {
			t.Errorf("Down: %v, removed: %v; want ErrForeign", err, removed())
		}
		if _, err := Up(t.Context(), Options{Name: "taken"}); !errors.Is(err, ErrForeign) || removed() {
			t.Errorf("Up: %v, removed: %v; want ErrForeign", err, removed())
		}
	})
	t.Run("ours", func(t *testing.T) {
		removed := fakeDocker(t, dir+"/certs.d")
		var told []string
		for range 2 { // the second time there is nothing left
			if err := Down(t.Context(), "taken", func(s string) { told = append(told, s) }); err != nil {
				t.Fatal(err)
			}
		}
		if !removed() || len(told) == 0 || !strings.HasPrefix(told[0], "removed container taken-control-plane") {
			t.Errorf("removed: %v, told %q", removed(), told)
		}
		if left, err := filepath.Glob(filepath.Join(cache, "*", "*")); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
	t.Run("no Docker", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if _, err := Up(t.Context(), Options{Name: "taken"}); !errors.Is(err, ErrNoEngine) {
			t.Errorf("Up: %v, want ErrNoEngine", err)
		}
	})
	t.Run("name", func(t *testing.T) {
		for _, name := range []string{"../x", "A", "a_b", "-a", strings.Repeat("a", 60)} {
			if err := Down(t.Context(), name, nil); err == nil {
				t.Errorf("Down of %q", name)
			}
		}
	})
}

func TestReady(t *testing.T) {
	node := func(ready corev1.ConditionStatus, taints ...corev1.Taint) *corev1.Node {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "n"}, Spec: corev1.NodeSpec{Taints: taints},
			Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, Message: "why"}}},
		}
	}
	pod := func(app string, ready corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: app, UID: types.UID(app), Labels: map[string]string{"k8s-app": app}},
			Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
		}
	}
	for _, test := range []struct {
		missing func(map[types.UID]client.Object) string
		objects []client.Object
		want    string
	}{
		{nodeReady, nil, "there is no node"},
		{nodeReady, []client.Object{node(corev1.ConditionFalse)}, "node n is not ready: why"},
		{nodeReady, []client.Object{node(corev1.ConditionTrue, corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoSchedule})}, "node n has the taint k"},
		{nodeReady, []client.Object{node(corev1.ConditionTrue)}, ""},
		{systemReady, nil, "there is no pod of kube-dns"},
		{systemReady, []client.Object{pod("kube-dns", corev1.ConditionTrue)}, "there is no pod of kube-proxy"},
		{systemReady, []client.Object{pod("kube-dns", corev1.ConditionTrue), pod("kube-proxy", corev1.ConditionFalse)}, "pod kube-proxy is not ready"},
		{systemReady, []client.Object{pod("kube-dns", corev1.ConditionTrue), pod("kube-proxy", corev1.ConditionTrue)}, ""},
	} {
		all := make(map[types.UID]client.Object)
		for _, o := range test.objects {
			all[o.GetUID()] = o
		}
		if got := test.missing(all); got != test.want {
			t.Errorf("missing: %q, want %q", got, test.want)
		}
	}
}

// What is missing when a watch starts is seen when it comes, and named when it doesn't.
func TestUntil(t *testing.T) {
	api := fake.NewClientBuilder().Build()
	missing := func(all map[types.UID]client.Object) string {
		if len(all) < 1 {
			return "no pod"
		}
		return ""
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := until(ctx, api, &corev1.PodList{}, missing); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no pod") {
		t.Errorf("until: %v, want the deadline, and what is missing", err)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "p"}}
		if err := api.Create(t.Context(), pod); err != nil {
			t.Error(err)
		}
	}()
	if err := until(t.Context(), api, &corev1.PodList{}, missing); err != nil {
		t.Error(err)
	}
}

func TestProgress(t *testing.T) {
	var told []string
	l := logger{newSteps(func(s string) { told = append(told, s) })}
	l.V(0).Infof(" • %s  ...\n", "Preparing nodes 📦")
	l.V(0).Infof(" ✓ %s\n", "Preparing nodes 📦")
	l.V(1).Info(" ✓ Detail")
	if diff := cmp.Diff([]string{"preparing nodes (0.0 s)"}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
