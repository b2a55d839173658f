package build

import (
	"encoding/base64"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/yaml"

	"github.com/layersim/layersim/controllers/layering"
)

var update = flag.Bool("update", false, "rewrite golden files")

// The vector is upstream's own (pkg/controller/build/buildrequest/machineosbuild_test.go of the newest release).
func TestName(t *testing.T) {
	config := &mcfgv1.MachineOSConfig{ObjectMeta: metav1.ObjectMeta{Name: "worker"}, Spec: mcfgv1.MachineOSConfigSpec{
		MachineConfigPool:     mcfgv1.MachineConfigPoolReference{Name: "worker"},
		ImageBuilder:          mcfgv1.MachineOSImageBuilder{ImageBuilderType: mcfgv1.JobBuilder},
		RenderedImagePushSpec: "registry.hostname.com/org/repo:latest",
		Containerfile:         []mcfgv1.MachineOSContainerfile{},
	}}
	rendered := &mcfgv1.MachineConfig{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{layering.ReleaseImageVersion: "release-version"},
	}}
	rendered.Spec.OSImageURL = "registry.hostname.com/org/repo@sha256 string = 220a60ecd4a3c32c282622a625a54db9ba0ff55b5ba9c29c7064a2bc358b6a3e"
	rendered.Spec.BaseOSExtensionsContainerImage = "registry.hostname.com/org/repo@sha256 string = 5fb4ba1a651bae8057ec6b5cdafc93fa7e0b7d944d6f02a4b751de4e15464def"
	name := func(configuration mcfgv1.MachineConfigPoolStatusConfiguration) string {
		t.Helper()
		name, err := Name(config, configuration, rendered)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	const want = "worker-699e6be74658adcb3ff2b48f32cd1584"
	if got := name(mcfgv1.MachineConfigPoolStatusConfiguration{}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	config.Annotations, config.Labels, config.Generation = map[string]string{"a": "b"}, map[string]string{"a": "b"}, 7
	if got := name(mcfgv1.MachineConfigPoolStatusConfiguration{}); got != want {
		t.Errorf("metadata changes the name")
	}
	other := mcfgv1.MachineConfigPoolStatusConfiguration{}
	other.Name = "rendered-worker-1"
	if name(other) == want {
		t.Error("the rendered config doesn't change the name")
	}
	config.Spec.RenderedImagePushSecret.Name = "other"
	if name(mcfgv1.MachineConfigPoolStatusConfiguration{}) == want {
		t.Error("a secret's name doesn't change the name")
	}
}

func TestProgress(t *testing.T) {
	now := metav1.Now()
	condition := func(kind batchv1.JobConditionType) []batchv1.JobCondition {
		return []batchv1.JobCondition{{Type: kind, Status: corev1.ConditionTrue}}
	}
	for _, test := range []struct {
		name     string
		status   batchv1.JobStatus
		deleting bool
		known    bool
		want     mcfgv1.BuildProgress
	}{
		{name: "new", want: mcfgv1.MachineOSBuildPrepared},
		{name: "uncounted", status: batchv1.JobStatus{UncountedTerminatedPods: &batchv1.UncountedTerminatedPods{}}, want: mcfgv1.MachineOSBuilding},
		{name: "active", status: batchv1.JobStatus{Active: 1}, want: mcfgv1.MachineOSBuilding},
		{name: "three failed", status: batchv1.JobStatus{Failed: 3}, want: mcfgv1.MachineOSBuilding},
		{name: "four failed", status: batchv1.JobStatus{Failed: 4}, want: mcfgv1.MachineOSBuildFailed},
		{name: "failed early", status: batchv1.JobStatus{Failed: 1, Conditions: condition(batchv1.JobFailed)}, want: mcfgv1.MachineOSBuildFailed},
		{name: "succeeded", status: batchv1.JobStatus{Succeeded: 1}, want: mcfgv1.MachineOSBuildSucceeded},
		{name: "criteria met", status: batchv1.JobStatus{Succeeded: 1, Conditions: condition(batchv1.JobSuccessCriteriaMet)}, want: mcfgv1.MachineOSBuilding},
		{name: "complete", status: batchv1.JobStatus{Succeeded: 1, Conditions: condition(batchv1.JobComplete)}, want: mcfgv1.MachineOSBuildSucceeded},
		{name: "deleted new", deleting: true, want: mcfgv1.MachineOSBuildInterrupted},
		{name: "deleted active", deleting: true, status: batchv1.JobStatus{Active: 1, Failed: 3}, want: mcfgv1.MachineOSBuildInterrupted},
		{name: "deleted failed", deleting: true, status: batchv1.JobStatus{Failed: 4}, want: mcfgv1.MachineOSBuildFailed},
		{name: "deleted complete", deleting: true, status: batchv1.JobStatus{Succeeded: 1, Conditions: condition(batchv1.JobComplete)}, want: mcfgv1.MachineOSBuildSucceeded},
		{name: "deleted with digest", deleting: true, known: true, status: batchv1.JobStatus{Active: 1}, want: mcfgv1.MachineOSBuildSucceeded},
	} {
		job := &batchv1.Job{Status: test.status}
		if test.deleting {
			job.DeletionTimestamp = &now
		}
		if got := progress(job, test.known); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

func TestAllowed(t *testing.T) {
	const p, b, f, i, s = mcfgv1.MachineOSBuildPrepared, mcfgv1.MachineOSBuilding, mcfgv1.MachineOSBuildFailed,
		mcfgv1.MachineOSBuildInterrupted, mcfgv1.MachineOSBuildSucceeded
	may := map[mcfgv1.BuildProgress][]mcfgv1.BuildProgress{"": {p, b, f, i, s}, p: {b, f, i, s}, b: {f, i, s}}
	for _, from := range []mcfgv1.BuildProgress{"", p, b, f, i, s} {
		for _, to := range []mcfgv1.BuildProgress{p, b, f, i, s} {
			want := false
			for _, one := range may[from] {
				want = want || one == to
			}
			if got := allowed(from, to); got != want {
				t.Errorf("%q to %q: got %v, want %v", from, to, got, want)
			}
		}
	}
	build := &mcfgv1.MachineOSBuild{}
	setState(build, b, time.Unix(1, 0))
	setState(build, s, time.Unix(2, 0))
	for _, c := range build.Status.Conditions {
		changed := c.Type == string(b) || c.Type == string(s)
		if (c.LastTransitionTime.Unix() == 2) != changed {
			t.Errorf("%s changed at %d", c.Type, c.LastTransitionTime.Unix())
		}
	}
	if len(build.Status.Conditions) != 5 || layering.Progress(build) != s {
		t.Errorf("conditions: %v", build.Status.Conditions)
	}
}

// The API wants a build's end after its start in whole seconds.
func TestEndWaitsForTheNextSecond(t *testing.T) {
	now := time.Unix(100, 300_000_000)
	p := &pass{reconciler: &reconciler{clock: clocktesting.NewFakePassiveClock(now)}}
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Unix(100, 0)}}
	moved, err := p.move(t.Context(), &mcfgv1.MachineOSBuild{}, job, mcfgv1.MachineOSBuildFailed, "")
	if moved || err != nil || p.after != 700*time.Millisecond {
		t.Errorf("moved %v, %v, again after %s", moved, err, p.after)
	}
}

func TestRequiresRebuild(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*mcfgv1.MachineConfigSpec)
		want   bool
	}{
		{"nothing", func(*mcfgv1.MachineConfigSpec) {}, false},
		{"files", func(s *mcfgv1.MachineConfigSpec) { s.Config.Raw = []byte("{}") }, false},
		{"fips", func(s *mcfgv1.MachineConfigSpec) { s.FIPS = true }, false},
		{"default kernel named", func(s *mcfgv1.MachineConfigSpec) { s.KernelType = "default" }, false},
		{"kernel", func(s *mcfgv1.MachineConfigSpec) { s.KernelType = "realtime" }, true},
		{"image", func(s *mcfgv1.MachineConfigSpec) { s.OSImageURL = "other" }, true},
		{"arguments", func(s *mcfgv1.MachineConfigSpec) { s.KernelArguments = []string{"a"} }, true},
		{"order of extensions", func(s *mcfgv1.MachineConfigSpec) { s.Extensions = []string{"sysstat", "ipsec"} }, true},
	} {
		from := &mcfgv1.MachineConfig{Spec: mcfgv1.MachineConfigSpec{OSImageURL: "os", Extensions: []string{"ipsec", "sysstat"}}}
		to := from.DeepCopy()
		test.change(&to.Spec)
		if got := RequiresRebuild(from, to); got != test.want {
			t.Errorf("%s: got %v", test.name, got)
		}
	}
}

func TestValidateContainerfile(t *testing.T) {
	for _, test := range []struct{ name, content, want string }{
		{"empty", "", ""},
		{"comments", "# nothing\n\n# here\n", ""},
		{"usual", "FROM configs AS final\nRUN rpm-ostree install tree && \\\n    ostree container commit\n", ""},
		{"here-documents", "FROM configs\nRUN <<EOF\necho one\nRUNN two\nEOF\nCOPY <<EOF /etc/motd\nhi\nEOF\n", ""},
		{"unquoted label", "LABEL a=b c=d\nENV A=1 B=2\n", ""},
		{"json", `RUN ["echo", "a"]`, ""},
		{"lower case", "from configs as final\nrun true\n", ""},
		{"unknown", "FROM configs AS final\n\n# why\nRUNN echo oops\n", "line 4: unknown instruction: RUNN"},
		{"no arguments", "FROM configs\nRUN\n", "line 2: RUN requires at least 1 argument(s), but has 0"},
		{"no source", "COPY one\n", "line 1: COPY requires at least 2 argument(s), but has 1"},
		{"from", "FROM configs final\n", "line 1: FROM requires one argument, or three: FROM <image> [AS <name>], but has: configs final"},
		{"after a continuation", "RUN a && \\\n  b\nBUILD\n", "line 3: unknown instruction: BUILD"},
		{"unterminated here-document", "FROM configs\nRUN true\nRUN <<EOF\necho\n", "line 3: RUN: EOF: unterminated heredoc"},
		{"malformed label", "FROM configs\nENV A\n", "line 2: ENV: ENV must have two arguments"},
	} {
		got := ""
		if err := ValidateContainerfile(test.content); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestCanonical(t *testing.T) {
	const entry = `{"reg.example":{"auth":"dTpzM2NyZXQ="}}`
	for _, test := range []struct {
		name string
		kind corev1.SecretType
		data map[string]string
		want string
		err  string
	}{
		{"modern", corev1.SecretTypeDockerConfigJson, map[string]string{".dockerconfigjson": `{"auths":` + entry + `}`}, `{"auths":` + entry + `}`, ""},
		{"legacy", corev1.SecretTypeDockercfg, map[string]string{".dockercfg": entry}, `{"auths":` + entry + `}`, ""},
		{"null", corev1.SecretTypeDockerConfigJson, map[string]string{".dockerconfigjson": "null"}, "", "holds no registry credentials"},
		{"no auths", corev1.SecretTypeDockerConfigJson, map[string]string{".dockerconfigjson": "{}"}, "", "holds no registry credentials"},
		{"garbage", corev1.SecretTypeDockercfg, map[string]string{".dockercfg": "s3cret"}, "", "holds no registry credentials"},
		{"no key", corev1.SecretTypeDockerConfigJson, nil, "", "has no key .dockerconfigjson"},
		{"both", corev1.SecretTypeDockercfg, map[string]string{".dockercfg": entry, ".dockerconfigjson": "{}"}, "", "also has key"},
		{"type", corev1.SecretTypeOpaque, map[string]string{".dockercfg": entry}, "", `is of type "Opaque"`},
	} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Type: test.kind, Data: map[string][]byte{}}
		for key, value := range test.data {
			secret.Data[key] = []byte(value)
		}
		got, err := canonical(secret)
		if string(got) != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: got %s, %v", test.name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the error tells a value: %v", test.name, err)
		}
	}
}

func TestAuthenticator(t *testing.T) {
	auth := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	config := []byte(`{"auths":{"reg.example":{"auth":"` + auth("host:1") + `"},"reg.example/ocl":{"auth":"` + auth("path:2:3") + `"},
		"https://other.example/":{"username":"u","password":"p"}}}`)
	for _, test := range []struct{ registry, repository, user, password string }{
		{"reg.example", "a/b", "host", "1"},
		{"reg.example", "ocl/layered", "path", "2:3"},
		{"reg.example", "oclx/layered", "host", "1"},
		{"other.example", "a", "u", "p"},
		{"none.example", "a", "", ""},
	} {
		found, err := authenticator(config, test.registry, test.repository)
		if err != nil {
			t.Fatal(err)
		}
		got, err := found.Authorization()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&authn.AuthConfig{Username: test.user, Password: test.password}, got); diff != "" {
			t.Errorf("%s/%s: %s", test.registry, test.repository, diff)
		}
	}
}

// golden compares with a file below testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (run with -update to accept):\n%s", path, diff)
	}
}

func TestObjects(t *testing.T) {
	in := sample()
	job, err := newJob(in)
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "job.yaml", text)
	objects, err := in.objects()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, object := range objects {
		if c, ok := object.(*corev1.ConfigMap); ok && c.Data["machineconfig.json.gz"] != "" {
			c.Data["machineconfig.json.gz"] = "(compressed)"
		}
		text, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString("---\n" + string(text))
	}
	golden(t, "objects.yaml", []byte(all.String()))
}

func sample() *ingredients {
	rendered := &mcfgv1.MachineConfig{ObjectMeta: metav1.ObjectMeta{Name: "rendered-layered-1"}}
	rendered.Spec.OSImageURL = "quay.io/os@sha256:1"
	rendered.Spec.BaseOSExtensionsContainerImage = "quay.io/ext@sha256:2"
	rendered.Spec.Extensions = []string{"usbguard", "kerberos"}
	rendered.Spec.KernelType = "realtime"
	rendered.Spec.Config = runtime.RawExtension{Raw: []byte(`{"storage":{"files":[
		{"path":"/etc/containers/policy.json","contents":{"source":"data:,%7B%22default%22%3A%5B%5D%7D"}},
		{"path":"/etc/containers/registries.conf","contents":{"source":"data:;base64,dW5xdWFsaWZpZWQgPSBbXQo="}}]}}`)}
	config := &mcfgv1.MachineOSConfig{ObjectMeta: metav1.ObjectMeta{Name: "layered"}}
	config.Spec.MachineConfigPool.Name = "layered"
	config.Spec.Containerfile = []mcfgv1.MachineOSContainerfile{
		{ContainerfileArch: mcfgv1.Arm64, Content: "never used"},
		{ContainerfileArch: mcfgv1.NoArch, Content: "FROM configs AS final\nRUN true\n"},
	}
	text, err := render(config, rendered, "4.18.1")
	if err != nil {
		panic(err)
	}
	build := &mcfgv1.MachineOSBuild{ObjectMeta: metav1.ObjectMeta{Name: "layered-0123", UID: "uid"}}
	build.Spec.MachineOSConfig.Name = "layered"
	build.Spec.RenderedImagePushSpec = "reg.example/ocl/layered:layered-0123"
	return &ingredients{
		build: build, pool: "layered", namespace: layering.Namespace, rendered: rendered, operatorImage: "quay.io/mco@sha256:3",
		controller: &mcfgv1.ControllerConfig{Spec: mcfgv1.ControllerConfigSpec{
			AdditionalTrustBundle: []byte("ca"),
		}},
		containerfile: text, base: []byte("{}"), push: []byte("{}"), baseName: "base-pull", pushName: "push", entitlement: true,
	}
}
