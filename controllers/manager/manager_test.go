package manager_test

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/build"
	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/drain"
	"github.com/layersim/layersim/controllers/manager"
	"github.com/layersim/layersim/controllers/node"
	"github.com/layersim/layersim/controllers/render"
	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/kube"
	"github.com/layersim/layersim/sim/machine"
	"github.com/layersim/layersim/sim/registry"
)

// offline returns a manager that never dials: its kinds are known without discovery and its informers are fake.
func offline(t *testing.T) (ctrlmanager.Manager, *informertest.FakeInformers) {
	t.Helper()
	scheme, err := manager.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	if err := machinev1beta1.Install(scheme); err != nil {
		t.Fatal(err)
	}
	informers := &informertest.FakeInformers{Scheme: scheme}
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
	return mgr, informers
}

func TestEveryComponentAttaches(t *testing.T) {
	mgr, _ := offline(t)
	components := append(kube.Components(kube.Options{}),
		build.New(build.Options{}), render.New(render.Options{}), node.New(node.Options{}), drain.New(drain.Options{}),
		machine.New(machine.Options{}), builder.New(builder.Options{Transport: registry.New(registry.Options{}).Transport}),
	)
	for _, c := range components {
		if err := manager.Add(mgr, c); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

// requestLog collects requests from the manager's goroutines.
type requestLog struct {
	mu    sync.Mutex
	names []string
	more  chan struct{}
}

func (l *requestLog) Reconcile(_ context.Context, r reconcile.Request) (reconcile.Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = append(l.names, r.Name)
	l.more <- struct{}{}
	return reconcile.Result{}, nil
}

func (l *requestLog) has(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.names {
		if n == name {
			return true
		}
	}
	return false
}

// wait waits until all names were reconciled.
func (l *requestLog) wait(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		for !l.has(name) {
			select {
			case <-l.more:
			case <-time.After(10 * time.Second):
				t.Fatalf("%s was never reconciled", name)
			}
		}
	}
}

func TestEvents(t *testing.T) {
	mgr, informers := offline(t)
	requests := &requestLog{more: make(chan struct{}, 100)}
	c := component.Component{
		Name: "recorder", Delay: 10 * time.Millisecond,
		Watches: []component.Watch{{
			Object: &corev1.ConfigMap{},
			Map: func(_ context.Context, reader client.Reader, object client.Object) []reconcile.Request {
				if reader == nil {
					t.Error("no reader")
				}
				r := reconcile.Request{}
				r.Name = object.GetLabels()["to"]
				return []reconcile.Request{r}
			},
			When: func(before, after client.Object) bool {
				for _, o := range []client.Object{before, after} {
					if o != nil && o.GetName() == "dull" {
						return false
					}
				}
				return true
			},
		}},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			if env.Client == nil || env.Live == nil || env.Clock == nil || env.Rand == nil || env.Recorder == nil {
				t.Errorf("incomplete environment %+v", env)
			}
			return requests, nil
		},
	}
	if err := manager.Add(mgr, c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	<-mgr.Elected()
	informer, err := informers.FakeInformerFor(ctx, &corev1.ConfigMap{})
	if err != nil {
		t.Fatal(err)
	}
	object := func(name, to string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"to": to}}}
	}
	// The handlers are registered some time after the start; until then the first object is added again.
	for !requests.has("added") {
		informer.Add(object("one", "added"))
		select {
		case <-requests.more:
		case <-time.After(20 * time.Millisecond):
		}
	}
	informer.Add(object("dull", "dropped"))
	informer.Update(object("one", "old"), object("one", "new"))
	informer.Delete(object("one", "deleted"))
	requests.wait(t, "old", "new", "deleted")
	if requests.has("dropped") {
		t.Error("an event that Watch.When drops led to a reconcile")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestCommandLine(t *testing.T) {
	asked := false
	p := manager.Program{Name: "machine-os-builder", Version: "4.18", Components: func() ([]component.Component, error) {
		asked = true
		return nil, nil
	}}
	cmd, out := p.Command(), &bytes.Buffer{}
	cmd.SetOut(out)
	cmd.SetArgs([]string{"version"})
	if err := cmd.ExecuteContext(t.Context()); err != nil || out.String() != "machine-os-builder 4.18\n" {
		t.Errorf("version: %q, %v", out, err)
	}
	cmd = p.Command()
	cmd.SetArgs([]string{"start", "-v4", "--kubeconfig", "/nonexistent", "--metrics-listen-address", "0"})
	if err := cmd.ExecuteContext(t.Context()); err == nil || asked {
		t.Errorf("start without a kubeconfig: %v", err)
	}
}
