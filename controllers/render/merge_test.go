package render_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/controllers/render"
)

const (
	base      = "registry.example/os@sha256:base"
	extension = "registry.example/ext@sha256:base"
)

func controllerConfig() *mcfgv1.ControllerConfig {
	c := &mcfgv1.ControllerConfig{ObjectMeta: metav1.ObjectMeta{Name: layering.ControllerConfigName}}
	c.Spec.BaseOSContainerImage, c.Spec.BaseOSExtensionsContainerImage = base, extension
	return c
}

func source(name, role, ignition string, change func(*mcfgv1.MachineConfigSpec)) mcfgv1.MachineConfig {
	mc := mcfgv1.MachineConfig{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{layering.MachineConfigRole: role}}}
	if ignition != "" {
		mc.Spec.Config = runtime.RawExtension{Raw: []byte(ignition)}
	}
	if change != nil {
		change(&mc.Spec)
	}
	return mc
}

func file(path, contents string) string {
	return `{"ignition":{"version":"3.2.0"},"storage":{"files":[{"path":"` + path + `","mode":420,"contents":{"source":"data:,` + contents + `"}}]}}`
}

func TestMerge(t *testing.T) {
	sources := []mcfgv1.MachineConfig{
		source("50-layered", "layered", file("/etc/both", "layered"), func(s *mcfgv1.MachineConfigSpec) {
			s.KernelArguments, s.Extensions = []string{"b=2"}, []string{"usbguard"}
		}),
		source("99-worker", "worker", file("/etc/both", "worker"), func(s *mcfgv1.MachineConfigSpec) {
			s.KernelArguments, s.KernelType, s.FIPS = []string{"a=1"}, "realtime", true
			s.OSImageURL = "registry.example/os@sha256:worker"
		}),
		source("10-layered", "layered", file("/etc/mine", "x"), func(s *mcfgv1.MachineConfigSpec) {
			s.KernelType, s.OSImageURL = "default", "registry.example/os@sha256:mine"
			s.KernelArguments = []string{"a=1"}
		}),
		source("00-worker", "worker", "", func(s *mcfgv1.MachineConfigSpec) { s.OSImageURL = "registry.example/os@sha256:template" }),
	}
	sources[3].Annotations = map[string]string{layering.GeneratedByController: "v"}
	merged, err := render.Merge(sources, controllerConfig())
	if err != nil {
		t.Fatal(err)
	}
	var ignition any
	if err := json.Unmarshal(merged.Spec.Config.Raw, &ignition); err != nil {
		t.Fatal(err)
	}
	contents := func(s string) map[string]any { return map[string]any{"source": "data:," + s} }
	want := map[string]any{
		"ignition": map[string]any{"version": "3.2.0"},
		"storage": map[string]any{"files": []any{
			map[string]any{"path": "/etc/both", "mode": 420.0, "contents": contents("layered")},
			map[string]any{"path": "/etc/mine", "mode": 420.0, "contents": contents("x")},
		}},
	}
	if diff := cmp.Diff(want, ignition); diff != "" {
		t.Errorf("ignition (-want +got):\n%s", diff)
	}
	merged.Spec.Config = runtime.RawExtension{}
	wantSpec := mcfgv1.MachineConfigSpec{OSImageURL: "registry.example/os@sha256:mine",
		BaseOSExtensionsContainerImage: extension, KernelArguments: []string{"a=1", "a=1", "b=2"},
		Extensions: []string{"usbguard"}, FIPS: true, KernelType: "realtime"}
	if diff := cmp.Diff(wantSpec, merged.Spec); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	if !merged.Overridden {
		t.Error("the user's OS image isn't reported as an override")
	}

	merged, err = render.Merge(sources[3:], controllerConfig())
	if err != nil {
		t.Fatal(err)
	}
	if merged.Spec.OSImageURL != base || merged.Overridden || merged.Spec.KernelType != "default" {
		t.Errorf("a generated MachineConfig alone gives %+v", merged.Spec)
	}
}

func TestMergeIgnition(t *testing.T) {
	v := `"ignition":{"version":"3.2.0"}`
	for _, tt := range []struct {
		name, first, second, want string
	}{
		{"contents are replaced whole, the rest of a file stays",
			`{` + v + `,"storage":{"files":[{"path":"/a","mode":384,"user":{"name":"core"},"contents":{"source":"data:;base64,H4s","compression":"gzip"}}]}}`,
			`{` + v + `,"storage":{"files":[{"path":"/a","mode":420,"contents":{"source":"data:,x"}}]}}`,
			`{` + v + `,"storage":{"files":[{"path":"/a","mode":420,"user":{"name":"core"},"contents":{"source":"data:,x"}}]}}`},
		{"units by name, drop-ins by name",
			`{` + v + `,"systemd":{"units":[{"name":"a.service","enabled":true,"dropins":[{"name":"1.conf","contents":"x"}]},{"name":"b.service"}]}}`,
			`{` + v + `,"systemd":{"units":[{"name":"c.service"},{"name":"a.service","mask":true,"dropins":[{"name":"2.conf"},{"name":"1.conf","contents":"y"}]}]}}`,
			`{` + v + `,"systemd":{"units":[{"name":"a.service","enabled":true,"mask":true,"dropins":[{"name":"1.conf","contents":"y"},{"name":"2.conf"}]},{"name":"b.service"},{"name":"c.service"}]}}`},
		{"users by name, their keys joined",
			`{` + v + `,"passwd":{"users":[{"name":"core","sshAuthorizedKeys":["k1","k2"]}]}}`,
			`{` + v + `,"passwd":{"users":[{"name":"core","sshAuthorizedKeys":["k2","k3"],"passwordHash":"h"}]}}`,
			`{` + v + `,"passwd":{"users":[{"name":"core","sshAuthorizedKeys":["k1","k2","k3"],"passwordHash":"h"}]}}`},
		{"one thing twice in one config", `{` + v + `}`,
			`{` + v + `,"systemd":{"units":[{"name":"a","enabled":true},{"name":"a","enabled":false}]}}`,
			`{` + v + `,"systemd":{"units":[{"name":"a","enabled":false}]}}`},
		{"the highest version stays", `{"ignition":{"version":"3.5.0"}}`, `{"ignition":{"version":"3.10.0-experimental"}}`,
			`{"ignition":{"version":"3.10.0-experimental"}}`},
		{"the highest version stays when it is the first's", `{"ignition":{"version":"3.10.0"}}`, `{"ignition":{"version":"3.5.0"}}`,
			`{"ignition":{"version":"3.10.0"}}`},
	} {
		merged, err := render.Merge([]mcfgv1.MachineConfig{source("1", "worker", tt.first, nil), source("2", "worker", tt.second, nil)},
			controllerConfig())
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var got, want any
		if err := json.Unmarshal(merged.Spec.Config.Raw, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(tt.want), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		sources []mcfgv1.MachineConfig
		want    string
	}{
		{"no sources", nil, "no MachineConfigs found matching selector"},
		{"not JSON", []mcfgv1.MachineConfig{source("a", "worker", `[1]`, nil)}, "machineconfig a: parse ignition config"},
		{"no version", []mcfgv1.MachineConfig{source("a", "worker", `{"storage":{}}`, nil)}, "has no ignition.version"},
		{"ignition 2", []mcfgv1.MachineConfig{source("a", "worker", `{"ignition":{"version":"2.2.0"}}`, nil)}, "2.2.0 is not supported"},
		{"kernel type", []mcfgv1.MachineConfig{source("a", "worker", "", func(s *mcfgv1.MachineConfigSpec) { s.KernelType = "tiny" })},
			`kernelType "tiny" is invalid`},
		{"kernel-devel", []mcfgv1.MachineConfig{source("a", "worker", "", func(s *mcfgv1.MachineConfigSpec) {
			s.KernelType, s.Extensions = "realtime", []string{"kernel-devel"}
		})}, "kernel-devel extension is not supported"},
		{"extension", []mcfgv1.MachineConfig{source("a", "worker", "", func(s *mcfgv1.MachineConfigSpec) {
			s.Extensions = []string{"usbguard", "no-such-extension"}
		})}, "invalid extensions found: [no-such-extension]"},
	} {
		if _, err := render.Merge(tt.sources, controllerConfig()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestName: the name is a function of the merged spec alone, and stays the same for ever.
func TestName(t *testing.T) {
	name := func(pool string, sources ...mcfgv1.MachineConfig) string {
		t.Helper()
		merged, err := render.Merge(sources, controllerConfig())
		if err != nil {
			t.Fatal(err)
		}
		n, err := render.Name(pool, &merged.Spec)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a, b := source("a", "worker", file("/etc/a", "1"), nil), source("b", "worker", file("/etc/b", "2"), nil)
	other := source("z", "layered", file("/etc/a", "1"), nil)
	other.Annotations = map[string]string{"x": "y"}

	if got, want := name("worker", a, b), "rendered-worker-9d785abb6e7322711632c1e72d389919"; got != want {
		t.Errorf("name %s, want %s", got, want)
	}
	if got, want := strings.TrimPrefix(name("worker", b, a), "rendered-worker-"), strings.TrimPrefix(name("layered", a, b), "rendered-layered-"); got != want {
		t.Errorf("the same sources give %s and %s", got, want)
	}
	if name("p", a) != name("p", other) {
		t.Error("name, labels or annotations of a source matter")
	}
	if name("p", a) == name("p", a, b) {
		t.Error("another source makes no difference")
	}
}
