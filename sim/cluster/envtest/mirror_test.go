//go:build likeness

package envtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// mirror is a client of two servers. It sends each request to the real one and to the simulated one, compares the two
// answers and returns the real one's. UIDs and resource versions in a request are translated to the simulated server's.
type mirror struct {
	client.WithWatch // the real server
	sim              client.WithWatch
	found            func(difference string) // is told each difference
	noted            func(request string)    // is told each request, for the reader of a difference

	mu       sync.Mutex
	uids     pairs
	versions pairs
	lists    map[string]string // resource versions of lists: real to simulated
	apart    map[string]bool   // objects of which the two servers hold different states since a difference
}

// pairs is a one-to-one relation between what the two servers have made up.
type pairs struct{ real, sim map[string]string }

// add relates two names and says whether both are new or both are related already.
func (p *pairs) add(real, sim string) bool {
	if p.real == nil {
		p.real, p.sim = map[string]string{}, map[string]string{}
	}
	s, knownReal := p.real[real]
	r, knownSim := p.sim[sim]
	if !knownReal && !knownSim {
		p.real[real], p.sim[sim] = sim, real
		return true
	}
	return knownReal && knownSim && s == sim && r == real
}

var (
	uuid         = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	timestamp    = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? \+0000 UTC`)
	document     = regexp.MustCompile(`^Invalid value: "\{.*\}": `)
	precondition = regexp.MustCompile(`\(\d+\)`)
	suffix       = regexp.MustCompile(`\bgenerated-[a-z0-9]{5}\b`)
)

// translated replaces the real server's UIDs and resource versions in what goes to the simulated one.
func (m *mirror) translated(v any, field string) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = m.translated(e, k)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = m.translated(e, "")
		}
		return out
	case string:
		if field == "resourceVersion" {
			if s, ok := m.versions.real[v]; ok {
				return s
			}
			if s, ok := m.lists[v]; ok {
				return s
			}
			return v
		}
		return uuid.ReplaceAllStringFunc(v, func(s string) string {
			if t, ok := m.uids.real[s]; ok {
				return t
			}
			return s
		})
	}
	return v
}

func toMap(o any) map[string]any {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(text, &out); err != nil {
		panic(err)
	}
	return out
}

// twin returns a copy of an object for the simulated server.
func (m *mirror) twin(o client.Object) client.Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := o.DeepCopyObject().(client.Object)
	if u, ok := c.(*unstructured.Unstructured); ok {
		text, err := json.Marshal(m.translated(u.Object, ""))
		if err != nil {
			panic(err)
		}
		// Not UnmarshalJSON of Unstructured, which wants a kind that can be missing on purpose; integers stay integers.
		u.Object = map[string]any{}
		if err := decode(text, &u.Object); err != nil {
			panic(err)
		}
		return u
	}
	if rv, ok := m.versions.real[c.GetResourceVersion()]; ok {
		c.SetResourceVersion(rv)
	}
	if uid, ok := m.uids.real[string(c.GetUID())]; ok {
		c.SetUID(types.UID(uid))
	}
	return c
}

// normal replaces what two servers can't have in common.
func normal(v any, field string) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			switch {
			case k == "managedFields" && field == "metadata", k == "resourceVersion" && (field == "metadata" || field == ""):
			default:
				out[k] = normal(e, k)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = normal(e, "item")
		}
		return out
	case string:
		v = uuid.ReplaceAllString(v, "UID")
		v = precondition.ReplaceAllString(v, "(RV)")
		v = suffix.ReplaceAllString(v, "generated-XXXXX")
		return timestamp.ReplaceAllString(v, "TIME")
	}
	return v
}

// differences lists the paths at which two values differ.
func differences(path string, real, sim any, found func(string)) {
	if r, ok := real.(map[string]any); ok {
		if s, ok := sim.(map[string]any); ok {
			keys := map[string]bool{}
			for k := range r {
				keys[k] = true
			}
			for k := range s {
				keys[k] = true
			}
			for _, k := range sortedKeys(keys) {
				rv, rok := r[k]
				sv, sok := s[k]
				switch {
				case !rok:
					found(fmt.Sprintf("%s.%s: real has none, sim %s", path, k, text(sv)))
				case !sok:
					found(fmt.Sprintf("%s.%s: real %s, sim has none", path, k, text(rv)))
				default:
					differences(path+"."+k, rv, sv, found)
				}
			}
			return
		}
	}
	if r, ok := real.([]any); ok {
		if s, ok := sim.([]any); ok && len(r) == len(s) {
			for i := range r {
				differences(fmt.Sprintf("%s[%d]", path, i), r[i], s[i], found)
			}
			return
		}
	}
	if a, b := text(real), text(sim); a != b {
		found(fmt.Sprintf("%s: real %s, sim %s", path, a, b))
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// status returns an error in a form that can be compared.
func status(err error) any {
	if err == nil {
		return nil
	}
	var s apierrors.APIStatus
	if errors.As(err, &s) {
		st := toMap(s.Status())
		for _, k := range []string{"apiVersion", "kind", "metadata"} {
			delete(st, k)
		}
		return causes(normal(st, "").(map[string]any))
	}
	if meta.IsNoMatchError(err) {
		return "no match"
	}
	return normal(err.Error(), "")
}

// causes makes the causes of an error a set: a real server finds those of a custom resource in the random order of a map,
// and finds the same one again in each of several validations. The message then only repeats them.
func causes(status map[string]any) any {
	details, ok := status["details"].(map[string]any)
	if !ok {
		return status
	}
	list, ok := details["causes"].([]any)
	if !ok {
		return status
	}
	set := map[string]any{}
	for _, c := range list {
		// The invalid value is the whole document, with managed fields.
		if m, ok := c.(map[string]any); ok && m["field"] == "patch" {
			m["message"] = document.ReplaceAllString(fmt.Sprint(m["message"]), "Invalid value: DOCUMENT: ")
		}
		set[text(c)] = c
	}
	sorted := []any{}
	for _, k := range sortedKeys(set) {
		sorted = append(sorted, set[k])
	}
	details["causes"] = sorted
	if message, ok := status["message"].(string); ok {
		if before, _, ok := strings.Cut(message, " is invalid: "); ok {
			status["message"] = before + " is invalid"
		}
	}
	return status
}

// short returns an error in a few words.
func short(status any) string {
	s, ok := status.(map[string]any)
	if !ok {
		if status == nil {
			return "accepts it"
		}
		return text(status)
	}
	out := fmt.Sprintf("%v %v %q", s["code"], s["reason"], s["message"])
	if details, ok := s["details"].(map[string]any); ok && details["causes"] != nil {
		for _, c := range details["causes"].([]any) {
			cause := c.(map[string]any)
			out += fmt.Sprintf(" (%v: %v)", cause["field"], cause["message"])
		}
	}
	return out
}

// compare compares two answers: an error, or an object.
func (m *mirror) compare(what, object string, real, sim runtime.Object, realErr, simErr error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if strings.HasPrefix(what, "create ") && realErr == nil && simErr == nil {
		delete(m.apart, object)
	}
	if m.apart[object] {
		return
	}
	if realErr != nil || simErr != nil {
		r, s := status(realErr), status(simErr)
		switch {
		case text(r) == text(s):
		case realErr == nil || simErr == nil:
			m.found(fmt.Sprintf("%s: real %s, sim %s", what, short(r), short(s)))
			m.apart[object] = true
		case short(r) != short(s):
			m.found(fmt.Sprintf("%s: real %s, sim %s", what, short(r), short(s)))
		default:
			differences(what+": error", r, s, m.found)
		}
		return
	}
	if real == nil {
		return
	}
	if rl, ok := real.(client.ObjectList); ok && meta.IsListType(real) {
		sl := sim.(client.ObjectList)
		m.lists[rl.GetResourceVersion()] = sl.GetResourceVersion()
		ro, err1 := meta.ExtractList(real)
		so, err2 := meta.ExtractList(sim)
		together := func(o runtime.Object) bool { return m.apart[nameOf(o)] }
		ro, so = slices.DeleteFunc(ro, together), slices.DeleteFunc(so, together)
		if err1 != nil || err2 != nil || len(ro) != len(so) {
			m.found(fmt.Sprintf("%s: real has %d items, sim %d %v %v", what, len(ro), len(so), err1, err2))
			return
		}
		for i := range ro {
			m.same(fmt.Sprintf("%s[%d]", what, i), ro[i], so[i])
		}
		if (rl.GetContinue() == "") != (sl.GetContinue() == "") || text(rl.GetRemainingItemCount()) != text(sl.GetRemainingItemCount()) {
			m.found(fmt.Sprintf("%s: continue and remaining items: real %q %s, sim %q %s", what,
				rl.GetContinue(), text(rl.GetRemainingItemCount()), sl.GetContinue(), text(sl.GetRemainingItemCount())))
		}
		return
	}
	m.same(what, real, sim)
}

func (m *mirror) same(what string, real, sim runtime.Object) {
	r, err1 := meta.Accessor(real)
	s, err2 := meta.Accessor(sim)
	if err1 == nil && err2 == nil {
		if (r.GetUID() != "" || s.GetUID() != "") && !m.uids.add(string(r.GetUID()), string(s.GetUID())) {
			m.found(fmt.Sprintf("%s: uid: one server has a new object, the other an old one", what))
		}
		if (r.GetResourceVersion() != "" || s.GetResourceVersion() != "") && !m.versions.add(r.GetResourceVersion(), s.GetResourceVersion()) {
			m.found(fmt.Sprintf("%s: resourceVersion: real %s, sim %s: a change for one, none for the other", what, r.GetResourceVersion(), s.GetResourceVersion()))
		}
	}
	differences(what, normal(toMap(real), ""), normal(toMap(sim), ""), m.found)
}

// nameOf names an object.
func nameOf(o runtime.Object) string {
	a, err := meta.Accessor(o)
	if err != nil {
		return ""
	}
	kind := o.GetObjectKind().GroupVersionKind().Kind
	return kind + " " + a.GetNamespace() + "/" + a.GetName()
}

func (m *mirror) isApart(o runtime.Object) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.apart[nameOf(o)]
}

func (m *mirror) what(verb string, o runtime.Object, sub string) string {
	kind := o.GetObjectKind().GroupVersionKind().Kind
	if kind == "" {
		kind = strings.TrimPrefix(fmt.Sprintf("%T", o), "*v1.")
	}
	if sub != "" {
		kind += "/" + sub
	}
	w := verb + " " + kind
	if m.noted != nil {
		m.noted(w + " " + text(o))
	}
	return w
}

func (m *mirror) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	what, object, twin := m.what("get", o, ""), nameOf(o), m.twin(o)
	err, simErr := m.WithWatch.Get(ctx, key, o, opts...), m.sim.Get(ctx, key, twin, opts...)
	m.compare(what, object, o, twin, err, simErr)
	return err
}

func (m *mirror) List(ctx context.Context, l client.ObjectList, opts ...client.ListOption) error {
	what, object, twin := m.what("list", l, ""), "", l.DeepCopyObject().(client.ObjectList)
	err, simErr := m.WithWatch.List(ctx, l, opts...), m.sim.List(ctx, twin, opts...)
	m.compare(what, object, l, twin, err, simErr)
	return err
}

func (m *mirror) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	what, object, twin := m.what("create", o, ""), nameOf(o), m.twin(o)
	err, simErr := m.WithWatch.Create(ctx, o, opts...), m.sim.Create(ctx, twin, opts...)
	m.compare(what, object, o, twin, err, simErr)
	return err
}

func (m *mirror) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	what, object, twin := m.what("update", o, ""), nameOf(o), m.twin(o)
	err, simErr := m.WithWatch.Update(ctx, o, opts...), m.sim.Update(ctx, twin, opts...)
	m.compare(what, object, o, twin, err, simErr)
	return err
}

// fixedPatch is a patch whose data is known.
func (m *mirror) patches(o client.Object, p client.Patch) (real, sim client.Patch, err error) {
	data, err := p.Data(o)
	if err != nil {
		return nil, nil, err
	}
	var v any
	if err := decode(data, &v); err != nil {
		return p, p, nil // as it is: the servers say what is wrong with it
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return client.RawPatch(p.Type(), data), client.RawPatch(p.Type(), []byte(text(m.translated(v, "")))), nil
}

func (m *mirror) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	what, object, twin := m.what("patch", o, ""), nameOf(o), m.twin(o)
	real, sim, err := m.patches(o, p)
	if err != nil {
		return err
	}
	err, simErr := m.WithWatch.Patch(ctx, o, real, opts...), m.sim.Patch(ctx, twin, sim, opts...)
	m.compare(what, object, o, twin, err, simErr)
	return err
}

func (m *mirror) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	what, object, twin := m.what("delete", o, ""), nameOf(o), m.twin(o)
	simOpts := (&client.DeleteOptions{}).ApplyOptions(opts)
	if p := simOpts.Preconditions; p != nil {
		m.mu.Lock()
		p = p.DeepCopy()
		if p.UID != nil {
			if s, ok := m.uids.real[string(*p.UID)]; ok {
				p.UID = (*types.UID)(&s)
			}
		}
		if p.ResourceVersion != nil {
			if s, ok := m.versions.real[*p.ResourceVersion]; ok {
				p.ResourceVersion = &s
			}
		}
		m.mu.Unlock()
		simOpts.Preconditions = p
	}
	err, simErr := m.WithWatch.Delete(ctx, o, opts...), m.sim.Delete(ctx, twin, simOpts)
	m.compare(what, object, nil, nil, err, simErr)
	return err
}

func (m *mirror) DeleteAllOf(ctx context.Context, o client.Object, opts ...client.DeleteAllOfOption) error {
	what, object, twin := m.what("deletecollection", o, ""), "", m.twin(o)
	err, simErr := m.WithWatch.DeleteAllOf(ctx, o, opts...), m.sim.DeleteAllOf(ctx, twin, opts...)
	m.compare(what, object, nil, nil, err, simErr)
	return err
}

func (m *mirror) Status() client.SubResourceWriter { return m.SubResource("status") }

func (m *mirror) SubResource(name string) client.SubResourceClient {
	return &mirrorSub{m.WithWatch.SubResource(name), m.sim.SubResource(name), m, name}
}

type mirrorSub struct {
	client.SubResourceClient // the real server's
	sim                      client.SubResourceClient
	m                        *mirror
	name                     string
}

func (s *mirrorSub) Get(ctx context.Context, o, sub client.Object, opts ...client.SubResourceGetOption) error {
	what, object, twin, twinSub := s.m.what("get", o, s.name), nameOf(o), s.m.twin(o), s.m.twin(sub)
	err, simErr := s.SubResourceClient.Get(ctx, o, sub, opts...), s.sim.Get(ctx, twin, twinSub, opts...)
	s.m.compare(what, object, sub, twinSub, err, simErr)
	return err
}

func (s *mirrorSub) Create(ctx context.Context, o, sub client.Object, opts ...client.SubResourceCreateOption) error {
	what, object, twin, twinSub := s.m.what("create", o, s.name), nameOf(o), s.m.twin(o), s.m.twin(sub)
	err, simErr := s.SubResourceClient.Create(ctx, o, sub, opts...), s.sim.Create(ctx, twin, twinSub, opts...)
	s.m.compare(what, object, nil, nil, err, simErr)
	return err
}

func (s *mirrorSub) Update(ctx context.Context, o client.Object, opts ...client.SubResourceUpdateOption) error {
	what, object, twin := s.m.what("update", o, s.name), nameOf(o), s.m.twin(o)
	update := (&client.SubResourceUpdateOptions{}).ApplyOptions(opts)
	answer, twinAnswer, simOpts := o, twin, opts
	if body := update.SubResourceBody; body != nil {
		answer, twinAnswer = body, s.m.twin(body)
		simOpts = append(slices.Clone(opts), client.WithSubResourceBody(twinAnswer))
	}
	err, simErr := s.SubResourceClient.Update(ctx, o, opts...), s.sim.Update(ctx, twin, simOpts...)
	s.m.compare(what, object, answer, twinAnswer, err, simErr)
	return err
}

func (s *mirrorSub) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
	what, object, twin := s.m.what("patch", o, s.name), nameOf(o), s.m.twin(o)
	real, sim, err := s.m.patches(o, p)
	if err != nil {
		return err
	}
	err, simErr := s.SubResourceClient.Patch(ctx, o, real, opts...), s.sim.Patch(ctx, twin, sim, opts...)
	s.m.compare(what, object, o, twin, err, simErr)
	return err
}

// Watch compares the events of two watches one by one and passes on the real server's.
func (m *mirror) Watch(ctx context.Context, l client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
	what, object := m.what("watch", l, ""), ""
	real, err := m.WithWatch.Watch(ctx, l, opts...)
	simOpts := (&client.ListOptions{}).ApplyOptions(opts)
	if simOpts.Raw != nil {
		simOpts.Raw = simOpts.Raw.DeepCopy()
		m.mu.Lock()
		if s, ok := m.lists[simOpts.Raw.ResourceVersion]; ok {
			simOpts.Raw.ResourceVersion = s
		}
		m.mu.Unlock()
	}
	sim, simErr := m.sim.Watch(ctx, l.DeepCopyObject().(client.ObjectList), simOpts)
	m.compare(what, object, nil, nil, err, simErr)
	if err != nil || simErr != nil {
		return real, err
	}
	out := make(chan watch.Event)
	p := watch.NewProxyWatcher(out)
	go func() {
		defer real.Stop()
		defer sim.Stop()
		defer close(out)
		for {
			var e, s watch.Event
			var ok bool
			select {
			case e, ok = <-real.ResultChan():
				if !ok {
					return
				}
			case <-p.StopChan():
				return
			}
			select {
			case s = <-sim.ResultChan():
			case <-time.After(5 * time.Second):
			}
			if e.Type != s.Type && !m.isApart(e.Object) {
				m.mu.Lock()
				m.found(fmt.Sprintf("%s: real %s %s, sim %s %s", what, e.Type, text(e.Object), s.Type, text(s.Object)))
				m.mu.Unlock()
			} else if e.Type != watch.Bookmark {
				m.compare(what, nameOf(e.Object), e.Object, s.Object, nil, nil)
			}
			select {
			case out <- e:
			case <-p.StopChan():
				return
			}
		}
	}()
	return p, nil
}

func decode(text []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return err
	}
	switch v := into.(type) {
	case *any:
		*v = numbers(*v)
	case *map[string]any:
		*v = numbers(*v).(map[string]any)
	}
	return nil
}

// numbers turns numbers into what unstructured objects hold.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = numbers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = numbers(e)
		}
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			panic(err)
		}
		return f
	}
	return v
}
