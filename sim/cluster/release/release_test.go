package release_test

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/layersim/layersim/sim/cluster/release"
)

const base = "registry.example.com/os/base@sha256:abababababababababababababababababababababababababababababababab"

func TestNames(t *testing.T) {
	names := release.Names()
	if names[0] != "4.18" || names[len(names)-1] != release.Main {
		t.Errorf("got %v", names)
	}
	if _, err := release.For("3.11"); err == nil || !strings.Contains(err.Error(), "4.18, 4.19") {
		t.Errorf("an unknown release: %v", err)
	}
}

// Every release serves what its controllers can't start without, under the version that they ask for.
func TestCRDs(t *testing.T) {
	for _, name := range release.Names() {
		r, crds := load(t, name)
		served := map[schema.GroupVersionKind]bool{}
		for _, crd := range crds {
			for _, v := range crd.Spec.Versions {
				served[schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind}] = v.Served
			}
		}
		for _, kind := range []string{
			"ContainerRuntimeConfig", "ControllerConfig", "KubeletConfig", "MachineConfig", "MachineConfigPool",
			"MachineOSBuild", "MachineOSConfig",
		} {
			if !served[schema.GroupVersionKind{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: kind}] {
				t.Errorf("%s: v1 of %s isn't served", name, kind)
			}
		}
		for _, kind := range []string{
			"APIServer", "ClusterVersion", "FeatureGate", "Image", "ImageDigestMirrorSet", "ImageTagMirrorSet", "Infrastructure",
			"Node", "Scheduler",
		} {
			if !served[schema.GroupVersionKind{Group: "config.openshift.io", Version: "v1", Kind: kind}] {
				t.Errorf("%s: v1 of %s isn't served", name, kind)
			}
		}
		node := schema.GroupVersionKind{Group: "machineconfiguration.openshift.io", Version: "v1", Kind: "MachineConfigNode"}
		if served[node] != r.MachineConfigNodes {
			t.Errorf("%s: MachineConfigNode is served: %v, want %v", name, served[node], r.MachineConfigNodes)
		}
		byName := func(a, b *apiextensionsv1.CustomResourceDefinition) int { return strings.Compare(a.Name, b.Name) }
		if !slices.IsSortedFunc(crds, byName) {
			t.Errorf("%s: not sorted", name)
		}
	}
}

// The API server of each release takes all objects as they are: nothing is invalid, and nothing gets lost.
func TestObjectsAreValid(t *testing.T) {
	for _, name := range release.Names() {
		r, crds := load(t, name)
		objects := r.Objects(release.Parameters{BaseImage: base, Trust: []byte("certificates")})
		objects = append(objects, release.Pool("worker"), release.Pool("layered"))
		checked := 0
		for _, o := range objects {
			u := o.(*unstructured.Unstructured)
			for _, crd := range crds {
				if crd.Spec.Group == u.GroupVersionKind().Group && crd.Spec.Names.Kind == u.GetKind() {
					checked++
					validate(t, name, crd, u)
				}
			}
		}
		if checked != 10 { // seven of the cluster's configuration, the ControllerConfig, two pools
			t.Errorf("%s: %d objects were checked", name, checked)
		}
	}
}

func validate(t *testing.T, name string, crd *apiextensionsv1.CustomResourceDefinition, u *unstructured.Unstructured) {
	t.Helper()
	i := slices.IndexFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool {
		return v.Name == u.GroupVersionKind().Version
	})
	if i < 0 {
		t.Errorf("%s: %s has no version %s", name, crd.Name, u.GroupVersionKind().Version)
		return
	}
	var internal apiextensions.CustomResourceValidation
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(
		crd.Spec.Versions[i].Schema, &internal, nil); err != nil {
		t.Fatal(err)
	}
	validator, _, err := validation.NewSchemaValidator(internal.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range validation.ValidateCustomResource(nil, u.Object, validator) {
		t.Errorf("%s: %s %s: %v", name, u.GetKind(), u.GetName(), e)
	}
	structural, err := structuralschema.NewStructural(internal.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	track := structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	lost := pruning.PruneWithOptions(u.DeepCopy().Object, structural, true, track)
	if len(lost) > 0 {
		t.Errorf("%s: %s %s: the schema doesn't know %v", name, u.GetKind(), u.GetName(), lost)
	}
}

func TestVersionIsTheSameEverywhere(t *testing.T) {
	r, _ := load(t, "4.20")
	found := map[string]string{}
	for _, o := range r.Objects(release.Parameters{BaseImage: base, Version: "4.20.7"}) {
		u := o.(*unstructured.Unstructured)
		switch u.GetKind() {
		case "ClusterVersion":
			found["ClusterVersion"], _, _ = unstructured.NestedString(u.Object, "status", "desired", "version")
		case "FeatureGate":
			list, _, _ := unstructured.NestedSlice(u.Object, "status", "featureGates")
			found["FeatureGate"], _ = list[0].(map[string]any)["version"].(string)
		case "ControllerConfig":
			found["ControllerConfig"] = u.GetAnnotations()["machineconfiguration.openshift.io/release-image-version"]
		}
	}
	for _, p := range r.Processes(release.Run{Version: "4.20.7"}) {
		for _, e := range p.Env {
			if v, ok := strings.CutPrefix(e, "RELEASE_VERSION="); ok {
				found[p.Name] = v
			}
		}
	}
	for where, version := range found {
		if version != "4.20.7" {
			t.Errorf("%s has version %q", where, version)
		}
	}
	if len(found) != 5 {
		t.Errorf("found %v", found)
	}
}

func TestGates(t *testing.T) {
	for _, name := range release.Names() {
		r, _ := load(t, name)
		if slices.Contains(r.Gates(), "OSStreams") {
			t.Errorf("%s: OSStreams is on", name)
		}
		if name == "4.18" && !slices.Contains(r.Gates(), "OnClusterBuild") {
			t.Error("4.18: OnClusterBuild is off")
		}
	}
}

func load(t *testing.T, name string) (*release.Release, []*apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	r, err := release.For(name)
	if err != nil {
		t.Fatal(err)
	}
	crds, err := r.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	return r, crds
}
