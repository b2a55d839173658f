package cluster_test

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/manager"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/scenario"
	"github.com/layersim/layersim/sim/world"
)

func topology(t *testing.T, name string) scenario.Topology {
	t.Helper()
	text := "kind: Scenario\nname: t\narea: test\nshows: a cluster\ncluster: " + name + "\nsteps: [{wait: {wait: 1m}}]\n"
	list, err := scenario.Parse("../../scenarios/t.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return list[0].Cluster
}

// Whatever runs in the simulator, inhabitants of the world included, attaches to a controller-runtime manager too.
func TestEveryComponentAttachesToAManager(t *testing.T) {
	var components []component.Component
	if _, err := cluster.New(topology(t, "two-pools"), world.Lag{}, cluster.Options{
		Break: func(c *component.Component) { components = append(components, *c) },
	}); err != nil {
		t.Fatal(err)
	}
	if len(components) < 15 {
		t.Fatalf("only %d components", len(components))
	}
	scheme, err := cluster.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	informers := &informertest.FakeInformers{Scheme: scheme}
	// A manager that never dials: its kinds are known without discovery, and its informers are fake.
	mgr, err := ctrlmanager.New(&rest.Config{Host: "https://offline.invalid"}, ctrlmanager.Options{
		Scheme: scheme,
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
			return meta.NewDefaultRESTMapper(scheme.PrioritizedVersionsAllGroups()), nil
		},
		NewCache: func(*rest.Config, cache.Options) (cache.Cache, error) { return informers, nil },
		Metrics:  metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range components {
		if err := manager.Add(mgr, c); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

// The language knows the processes and components that there are, and no others.
func TestLanguageKnowsComponents(t *testing.T) {
	there := map[string]bool{}
	c, err := cluster.New(topology(t, "scale"), world.Lag{}, cluster.Options{
		Break: func(c *component.Component) { there[c.Name] = true },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range c.Engine.Processes() {
		there[name] = true
	}
	for _, name := range scenario.Components {
		if !there[name] {
			t.Errorf("the language knows %s, the cluster doesn't", name)
		}
	}
}

// Each topology of the library comes up at rest with all its pools updated; New checks that.
func TestTopologiesComeUp(t *testing.T) {
	files, err := os.ReadDir("../../fixtures/clusters")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".yaml")
		if _, err := cluster.New(topology(t, name), world.Lag{}, cluster.Options{Seed: 3}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
