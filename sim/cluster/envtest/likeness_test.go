//go:build likeness

package envtest_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/cluster/envtest"
	"github.com/layersim/layersim/sim/store"
	"github.com/layersim/layersim/sim/store/storetest"
)

var (
	sequences = flag.Int("sequences", 20, "random `sequences` of operations")
	mutants   = flag.Int("mutants", 20, "broken objects a kind")
	seed      = flag.Uint64("seed", 1, "of everything that is random")
)

const namespace = "likeness"

// enough is the number of mutants from which on each explanation of a difference should find its use.
const enough = 150

// pair is a real API server and a simulated one, with the same CustomResourceDefinitions and the namespace.
type pair struct {
	*mirror
	config *rest.Config
	store  *store.Store
}

func newPair(t *testing.T) *pair {
	t.Helper()
	began := time.Now()
	crds, err := fixtures.CRDs()
	must(t, err)
	// The plugin taints each new Node as not ready. In the simulation a Node is as it was created until the model of the
	// node lifecycle controller has seen its conditions, so the objects of the two servers would go apart at once.
	arguments := map[string][]string{"disable-admission-plugins": {"TaintNodesByCondition"}}
	cp, err := envtest.Start(t.Context(), envtest.Options{CRDs: crds, Arguments: arguments})
	must(t, err)
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("control plane ready after %s", time.Since(began).Round(time.Millisecond))

	scheme := runtime.NewScheme()
	must(t, clientgoscheme.AddToScheme(scheme))
	must(t, mcfgv1.Install(scheme))
	config := rest.CopyConfig(cp.Config)
	config.WarningHandler = rest.NoWarnings{}
	config.UserAgent = "likeness"
	// Without the header client-go doesn't try again when an eviction is refused.
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return once{rt} })
	real, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	must(t, err)
	s := store.New(store.Options{Scheme: scheme, Seed: 1})
	sim := s.Client(store.ClientOptions{Author: "likeness"})
	for _, crd := range crds {
		must(t, sim.Create(t.Context(), crd.DeepCopy()))
	}
	must(t, sim.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceDefault}}))
	for _, c := range []client.Client{real, sim} {
		must(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
		// Without a token's volume, which the simulated server doesn't add.
		automount := false
		must(t, c.Create(t.Context(), &corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "default"}, AutomountServiceAccountToken: &automount,
		}))
	}
	return &pair{&mirror{WithWatch: real, sim: sim, lists: map[string]string{}, apart: map[string]bool{}}, config, s}
}

type once struct{ http.RoundTripper }

func (o once) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := o.RoundTripper.RoundTrip(r)
	if err == nil {
		answer.Header.Del("Retry-After")
	}
	return answer, err
}

// TestLikeness sends the same requests to a real API server and to the simulated one, and compares each answer. What
// differs must be explained in testdata/differences.yaml, and each explanation there must explain something.
func TestLikeness(t *testing.T) {
	p := newPair(t)
	known := explanations(t)
	seen := map[string]*finding{}
	last := ""
	p.noted = func(r string) { last = r }
	p.found = func(d string) {
		for _, e := range known {
			if e.pattern.MatchString(d) {
				e.used++
				return
			}
		}
		kind := regexp.MustCompile(`^\w+ (\w+)`).FindStringSubmatch(d)[1]
		// The same difference of other kinds and with other numbers is one.
		key := strings.NewReplacer(kind, "KIND", strings.ToLower(kind), "KIND").Replace(regexp.MustCompile(`\d+`).ReplaceAllString(d, "#"))
		f := seen[key]
		if f == nil {
			f = &finding{text: d, request: last, kinds: map[string]bool{}}
			seen[key] = f
		}
		f.count++
		f.kinds[kind] = true
	}
	t.Run("requests", func(t *testing.T) { requests(t, p) })
	t.Run("mutants", func(t *testing.T) {
		for _, kind := range sortedKeys(examples) {
			mutate(t, p, kind)
		}
	})
	t.Run("sequences", func(t *testing.T) { random(t, p) })
	for _, e := range known {
		if e.used == 0 && *mutants >= enough && *seed == 1 {
			t.Errorf("testdata/differences.yaml: nothing differs by %q any more: remove it", e.Difference)
		}
	}
	for _, key := range sortedKeys(seen) {
		f := seen[key]
		t.Errorf("%d times, %v: %s\n\tfirst after %s", f.count, sortedKeys(f.kinds), f.text, f.request)
	}
}

// finding is a difference that nothing explains.
type finding struct {
	text, request string
	kinds         map[string]bool
	count         int
}

type explanation struct {
	// Difference is a regular expression for whole differences.
	Difference string `json:"difference"`
	Reason     string `json:"reason"`

	pattern *regexp.Regexp
	used    int
}

func explanations(t *testing.T) []*explanation {
	t.Helper()
	text, err := os.ReadFile("testdata/differences.yaml")
	must(t, err)
	var out []*explanation
	must(t, yaml.UnmarshalStrict(text, &out))
	for _, e := range out {
		if e.Reason == "" {
			t.Errorf("testdata/differences.yaml: %q has no reason", e.Difference)
		}
		e.pattern, err = regexp.Compile("^(?s:" + e.Difference + ")$")
		must(t, err)
	}
	return out
}

// random runs the store's property test against both servers.
func random(t *testing.T, p *pair) {
	for name, value := range map[string]string{
		"rapid.checks": fmt.Sprint(*sequences), "rapid.seed": fmt.Sprint(*seed), "rapid.nofailfile": "true", "rapid.shrinktime": "5s",
	} {
		must(t, flag.Set(name, value))
	}
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		storetest.Check(ctx, r, storetest.Options{Client: p, Namespace: namespace, Prefix: fmt.Sprintf("s%d-", n)})
	})
}

// parse returns the object of a YAML text, in the namespace if the kind has one.
func (p *pair) parse(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	must(t, yaml.Unmarshal([]byte(text), &u.Object))
	u.Object = numbers(u.Object).(map[string]any)
	data, err := u.MarshalJSON()
	must(t, err)
	must(t, u.UnmarshalJSON(data))
	p.place(t, u)
	return u
}

func (p *pair) place(t testing.TB, u *unstructured.Unstructured) {
	t.Helper()
	if namespaced, err := p.WithWatch.IsObjectNamespaced(u); err == nil && namespaced && u.GetNamespace() == "" {
		u.SetNamespace(namespace)
	}
}

// mutate creates broken copies of an example, and updates a good one to them.
func mutate(t *testing.T, p *pair, kind string) {
	r := rand.New(rand.NewPCG(*seed, uint64(len(kind))*31+uint64(kind[0])))
	base := p.parse(t, examples[kind])
	if err := p.Create(t.Context(), base.DeepCopy(), client.DryRunAll); err != nil {
		t.Errorf("the example for %s is refused: %v", kind, err)
		return
	}
	stored := base.DeepCopy()
	if err := p.Create(t.Context(), stored); err != nil {
		t.Errorf("the example for %s is refused: %v", kind, err)
		return
	}
	for range *mutants {
		m := base.DeepCopy()
		where := change(r, m.Object)
		if m.GetKind() != base.GetKind() || m.GetAPIVersion() != base.GetAPIVersion() {
			continue
		}
		fresh := m.DeepCopy()
		if fresh.GetName() == base.GetName() {
			fresh.SetName(base.GetName() + "-new")
			if kind == "MachineOSConfig" {
				_ = unstructured.SetNestedField(fresh.Object, fresh.GetName(), "spec", "machineConfigPool", "name")
			}
		}
		_ = p.Create(t.Context(), fresh, client.DryRunAll)
		if m.GetName() == base.GetName() && m.GetNamespace() == base.GetNamespace() && where != "" {
			u := stored.DeepCopy()
			for _, k := range []string{"spec", "data", "status"} {
				if v, ok := m.Object[k]; ok {
					u.Object[k] = v
				} else {
					delete(u.Object, k)
				}
			}
			if l := m.GetLabels(); l != nil {
				u.SetLabels(l)
			}
			_ = p.Update(t.Context(), u.DeepCopy(), client.DryRunAll)
			_ = p.Status().Update(t.Context(), u, client.DryRunAll)
		}
	}
	must(t, client.IgnoreNotFound(p.Delete(t.Context(), stored)))
}

// change changes one place of an object and returns its path.
func change(r *rand.Rand, o map[string]any) string {
	var path string
	var at any = o
	for depth := 0; ; depth++ {
		switch v := at.(type) {
		case map[string]any:
			if depth > 0 && (len(v) == 0 || r.IntN(8) == 0) {
				v["unknown"] = "field"
				return path + ".unknown"
			}
			keys := sortedKeys(v)
			if depth == 0 { // identity is not what this is about
				keys = slices.DeleteFunc(keys, func(k string) bool { return k == "kind" || k == "apiVersion" })
				if r.IntN(10) > 0 {
					keys = slices.DeleteFunc(keys, func(k string) bool { return k == "metadata" })
				}
			}
			if len(keys) == 0 {
				return ""
			}
			k := keys[r.IntN(len(keys))]
			path += "." + k
			if child := v[k]; depth > 0 && r.IntN(4) == 0 || leaf(child) {
				if path == ".metadata.name" || path == ".metadata.namespace" || path == ".metadata" {
					return ""
				}
				if r.IntN(4) == 0 {
					delete(v, k)
				} else {
					v[k] = other(r, child)
				}
				return path
			} else {
				at = child
			}
		case []any:
			if len(v) == 0 {
				return ""
			}
			i := r.IntN(len(v))
			path += fmt.Sprintf("[%d]", i)
			if leaf(v[i]) {
				v[i] = other(r, v[i])
				return path
			}
			at = v[i]
		default:
			return path
		}
	}
}

func leaf(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return false
	}
	return true
}

// other returns a value in place of another.
func other(r *rand.Rand, v any) any {
	switch v := v.(type) {
	case string:
		return []any{"", "x", "Not_A.Name", strings.Repeat("x", 300), v + "-2", int64(7), true, nil, "-", "a b", "ready"}[r.IntN(11)]
	case int64:
		return []any{int64(0), int64(-1), v + 1, int64(1) << 40, "7", true, nil, 1.5}[r.IntN(8)]
	case bool:
		return []any{!v, nil, "true", int64(1)}[r.IntN(4)]
	case []any:
		switch r.IntN(5) {
		case 0:
			return []any{}
		case 1:
			if len(v) > 0 {
				return append(slices.Clone(v), runtime.DeepCopyJSONValue(v[0]))
			}
			return nil
		case 2:
			return "list"
		case 3:
			return map[string]any{"a": "b"}
		}
		return nil
	}
	return []any{nil, map[string]any{}, "text", []any{"a"}}[r.IntN(4)]
}

// table compares what `oc get` prints of all objects of a kind.
func (p *pair) table(t *testing.T, gvk schema.GroupVersionKind, plural string) {
	t.Helper()
	c := rest.CopyConfig(p.config)
	gv := gvk.GroupVersion()
	c.GroupVersion, c.APIPath = &gv, "/apis"
	if gv.Group == "" {
		c.APIPath = "/api"
	}
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, gv)
	must(t, metav1.AddMetaToScheme(scheme))
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	rc, err := rest.RESTClientFor(c)
	must(t, err)
	raw, err := rc.Get().Resource(plural).SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	must(t, err)
	real := &metav1.Table{}
	must(t, yaml.Unmarshal(raw, real))

	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gv.WithKind(gvk.Kind + "List"))
	must(t, p.sim.List(t.Context(), list))
	var items []*unstructured.Unstructured
	for i := range list.Items {
		items = append(items, &list.Items[i])
	}
	sim, err := p.store.Table(gvk, items)
	must(t, err)
	what := "table " + gvk.Kind
	builtin := !strings.HasSuffix(gvk.Group, ".openshift.io")
	p.noted(what)
	columns := func(t *metav1.Table) any {
		var out []any
		for _, c := range t.ColumnDefinitions {
			if c.Priority > 0 && builtin { // -o wide, which the simulated server doesn't have for built-in kinds
				continue
			}
			out = append(out, fmt.Sprintf("%s %s %s %d", c.Name, c.Type, c.Format, c.Priority))
		}
		return out
	}
	differences(what+": columns", columns(real), columns(sim), p.found)
	// What a real server makes for itself.
	theirs := regexp.MustCompile(`^(default|kube-.*|kubernetes\..*|system:.*|apiserver-.*|extension-apiserver-.*|cluster-admin|likeness)$`)
	object := func(r metav1.TableRow) runtime.Object {
		if r.Object.Object != nil {
			return r.Object.Object
		}
		u := &unstructured.Unstructured{}
		if err := json.Unmarshal(r.Object.Raw, &u.Object); err != nil {
			t.Error(err)
		}
		return u
	}
	age := regexp.MustCompile(`^(<unknown>|<invalid>|-?\d+(\.\d+)?(s|m|h|d|y).*)$`)
	rows := func(t *metav1.Table) any {
		out := map[string]any{}
		for _, r := range t.Rows {
			var cells []any
			for i, c := range r.Cells {
				if builtin && i < len(t.ColumnDefinitions) && t.ColumnDefinitions[i].Priority > 0 {
					continue
				}
				if s, ok := c.(string); ok {
					c = age.ReplaceAllString(s, "AGE")
				}
				cells = append(cells, normal(c, ""))
			}
			if o, err := meta.Accessor(object(r)); err == nil && !theirs.MatchString(o.GetName()) {
				out[o.GetName()] = cells
			}
		}
		return out
	}
	differences(what, rows(real), rows(sim), p.found)
}
