package release

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/layersim/layersim/fixtures"
)

// Main is the name of upstream's main branch.
const Main = "main"

// MinimumBuild is how long a build pod must run, by upstream's clock, for upstream's controllers to show what they show on
// a real cluster.
const MinimumBuild = 20 * time.Second

// Release is a release of upstream's controllers. It is not to be changed.
type Release struct {
	// Name is "4.18", or "main".
	Name string
	// Version is a payload version of this release, such as 4.18.0.
	Version string
	// InitContainer says that build pods have the container image-build as an init container, followed by
	// create-digest-configmap; otherwise it runs beside wait-for-done.
	InitContainer bool
	// MachineConfigNodes says that the release has them, as machineconfiguration.openshift.io/v1.
	MachineConfigNodes bool
	// Definitions are the published definitions that CRDs returns, as a module's version.
	Definitions string

	paths             []string
	enabled, disabled []string
}

// known are the releases, oldest first.
var known = []Release{
	{Name: "4.18", Version: "4.18.0"},
	{Name: "4.19", Version: "4.19.0"},
	{Name: "4.20", Version: "4.20.0", InitContainer: true, MachineConfigNodes: true},
	{Name: "4.21", Version: "4.21.0", InitContainer: true, MachineConfigNodes: true},
	{Name: "4.22", Version: "4.22.0", InitContainer: true, MachineConfigNodes: true},
	{Name: Main, Version: "5.1.0", InitContainer: true, MachineConfigNodes: true},
}

// gates are those that differ from a release's default feature set, and why: layering itself was to be switched on in 4.18,
// and streams of operating systems are found by inspecting the images of a real release.
var gates = map[string]bool{"OnClusterBuild": true, "OSStreams": false}

// Names returns the names of the releases, oldest first.
func Names() []string {
	names := make([]string, len(known))
	for i, r := range known {
		names[i] = r.Name
	}
	return names
}

// For returns a release by its name. The error lists the names.
func For(name string) (*Release, error) {
	i := slices.IndexFunc(known, func(r Release) bool { return r.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("no release %q; there are %s", name, strings.Join(Names(), ", "))
	}
	r := known[i]
	text, err := fixtures.FS.ReadFile("releases/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", name, err)
	}
	var list struct {
		API         string   `json:"api"`
		Definitions []string `json:"definitions"`
		Enabled     []string `json:"enabled"`
		Disabled    []string `json:"disabled"`
	}
	if err := yaml.UnmarshalStrict(text, &list); err != nil {
		return nil, fmt.Errorf("release %s: %w", name, err)
	}
	r.Definitions, r.paths = list.API, list.Definitions
	for _, half := range []struct {
		gates []string
		on    bool
	}{{list.Enabled, true}, {list.Disabled, false}} {
		for _, g := range half.gates {
			on, ok := gates[g]
			if !ok {
				on = half.on
			}
			if on {
				r.enabled = append(r.enabled, g)
			} else {
				r.disabled = append(r.disabled, g)
			}
		}
	}
	slices.Sort(r.enabled)
	slices.Sort(r.disabled)
	return &r, nil
}

// CRDs returns the release's CustomResourceDefinitions, sorted by name: the kinds that its controllers watch or read, and
// the machine API's. The objects are shared: copy one before changing it.
func (r *Release) CRDs() ([]*apiextensionsv1.CustomResourceDefinition, error) {
	crds := make([]*apiextensionsv1.CustomResourceDefinition, 0, len(r.paths))
	for _, path := range r.paths {
		crd, err := definition(path)
		if err != nil {
			return nil, fmt.Errorf("definitions of release %s: %w", r.Name, err)
		}
		crds = append(crds, crd)
	}
	slices.SortFunc(crds, func(a, b *apiextensionsv1.CustomResourceDefinition) int { return strings.Compare(a.Name, b.Name) })
	return crds, nil
}

// parsed holds definitions by path, since releases share most of them.
var parsed sync.Map

func definition(path string) (*apiextensionsv1.CustomResourceDefinition, error) {
	if crd, ok := parsed.Load(path); ok {
		return crd.(*apiextensionsv1.CustomResourceDefinition), nil
	}
	text, err := fixtures.FS.ReadFile(path)
	if err != nil {
		return nil, err
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(text, crd); err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	first, _ := parsed.LoadOrStore(path, crd)
	return first.(*apiextensionsv1.CustomResourceDefinition), nil
}
