package kind

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/mod/modfile"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// The node image that is looked for is the one that is built. And what is compiled for one of the modules serves the others: a
// module that two of them require has one version.
func TestVersions(t *testing.T) {
	versions, where := map[string]string{"k8s.io/kubernetes": Version}, map[string]string{"k8s.io/kubernetes": "this package"}
	for _, folder := range []string{".", "hack/controlplane", "hack/nodeimage/programs"} {
		file := filepath.Join("..", "..", "..", folder, "go.mod")
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		module, err := modfile.Parse(file, data, nil)
		if err != nil {
			t.Fatal(err)
		}
		replaced := map[string]string{}
		for _, r := range module.Replace {
			replaced[r.Old.Path] = r.New.Version
		}
		for _, r := range module.Require {
			version := cmp.Or(replaced[r.Mod.Path], r.Mod.Version)
			if other := versions[r.Mod.Path]; other != "" && other != version {
				t.Errorf("%s requires %s %s, and %s %s: use the newer one in both", folder, r.Mod.Path, version, where[r.Mod.Path], other)
			}
			versions[r.Mod.Path], where[r.Mod.Path] = version, folder
		}
	}
}

// The node image's CoreDNS has the plugins that the Corefile speaks of.
func TestCorefile(t *testing.T) {
	file := filepath.Join("..", "..", "..", "hack", "nodeimage", "programs", "coredns", "main.go")
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	directives := regexp.MustCompile(`(?m)^\t([a-z]+)`).FindAllStringSubmatch(corefile, -1)
	if len(directives) < 5 {
		t.Errorf("directives %v of the Corefile: not all were found", directives)
	}
	for _, d := range directives {
		if !strings.Contains(string(program), strconv.Quote(d[1])) {
			t.Errorf("%s has no plugin for %s", file, d[1])
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
	if diff := gocmp.Diff([]string{"linux", runtime.GOARCH, "/usr/bin/agent", "A=b"},
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
	if diff := gocmp.Diff(want, got); diff != "" {
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

// One process at a time runs scenarios on a cluster, and one on which a run was cut off is replaced.
func TestClaim(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	dir := filepath.Join(cache, "layersim", "kind", "taken")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	removed := fakeDocker(t, dir+"/certs.d")
	var told []string
	up := func() error {
		_, err := Up(t.Context(), Options{Name: "taken", claims: true, Progress: func(s string) { told = append(told, s) }})
		return err
	}

	c, err := claimRuns(dir)
	if err != nil || c.underWay {
		t.Fatalf("claimed: %+v, %v", c, err)
	}
	if err := up(); !errors.Is(err, ErrInUse) || removed() {
		t.Errorf("while another process has it: %v, removed: %v; want ErrInUse", err, removed())
	}
	if err := errors.Join(c.begin(), c.end(), c.begin(), c.release()); err != nil {
		t.Fatal(err)
	}
	if err := up(); err == nil || !removed() || len(told) == 0 || !strings.HasPrefix(told[0], "removed cluster taken, on which a run was cut off") {
		t.Errorf("removed: %v, told %q, and then %v; want that this Docker can't make another", removed(), told, err)
	}
	c, err = claimRuns(dir)
	if err != nil || !c.underWay {
		t.Fatalf("cut off: %+v, %v; want it as long as there is no other cluster", c, err)
	}
	if err := errors.Join(c.end(), c.release()); err != nil {
		t.Fatal(err)
	}
	if c, err = claimRuns(dir); err != nil || c.underWay {
		t.Fatalf("cut off: %+v, %v; want that it has ended", c, err)
	}
	if err := c.release(); err != nil {
		t.Fatal(err)
	}
	if err := up(); err == nil {
		t.Error("this Docker has made a cluster")
	}
	if _, err := os.Stat(filepath.Join(dir, "run")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want that an Up that failed leaves nothing of a claim", err)
	}
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
	if diff := gocmp.Diff([]string{"preparing nodes (0.0 s)"}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
