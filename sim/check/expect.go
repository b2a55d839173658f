package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/scenario"
	"github.com/layersim/layersim/sim/store"
)

// expectation is one statement, ready to be judged.
type expectation struct {
	*scenario.Expectation
	gvk     schema.GroupVersionKind
	columns []apiextensionsv1.CustomResourceColumnDefinition
	where   cel.Program
	whole   cel.Program

	// since is the sequence number after which registry requests, logs and boots count.
	since int64
	boots map[string]int
	// ever holds, for statements over the whole run, the UIDs of the objects that met it and when they first did.
	ever  map[string]bool
	first []time.Duration

	judged int64
	holds  bool
	why    string
	// evaluated counts the evaluations of the CEL expression, broken those that were no more than an error.
	evaluated, broken int
	last              error
}

// newExpectation compiles a statement. Columns gives the printer columns of a kind, nil for built-in kinds.
func newExpectation(e *scenario.Expectation, s *State, columns Columns) (*expectation, error) {
	x := &expectation{Expectation: e, judged: -1}
	if o := e.Object; o != nil {
		gvk, _, ok := scenario.KindOf(o.Kind)
		if !ok {
			return nil, fmt.Errorf("%s: unknown kind %s", e.Pos, o.Kind)
		}
		x.gvk = gvk
		if columns != nil {
			x.columns = columns(gvk)
		}
		if o.Where != "" {
			env, err := objectEnv()
			if err == nil {
				x.where, err = compile(env, o.Where)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: where: %w", e.Pos, err)
			}
		}
	}
	if e.CEL != "" {
		env, err := scenario.NewStateEnv(s.list)
		if err == nil {
			x.whole, err = compile(env, e.CEL)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Pos, err)
		}
	}
	return x, nil
}

// objectEnv is made once: it costs more than compiling an expression, and is the same for all.
var objectEnv = sync.OnceValues(scenario.NewObjectEnv)

func compile(env *cel.Env, expression string) (cel.Program, error) {
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		return nil, issues.Err()
	}
	return env.Program(ast)
}

// list gives the objects of a kind to expressions over the whole state.
func (s *State) list(k scenario.Kind) []any {
	list := []any{}
	s.Each(k.GroupKind(), func(o *unstructured.Unstructured) bool {
		list = append(list, o.Object)
		return true
	})
	return list
}

// begin starts the time that the statement looks at: requests, logs and boots before it don't count.
func (x *expectation) begin(s *State, seq int64) {
	x.since, x.judged = seq, -1
	x.boots = maps.Clone(s.boots)
}

// judge says whether the statement holds now, and if not, why.
func (x *expectation) judge(s *State) (bool, string) {
	version := s.version
	if x.Object != nil && !strings.Contains(x.Object.Where, "now") && len(x.Object.Row) == 0 && len(x.Object.Columns) == 0 {
		version = s.kind(x.gvk.GroupKind()).version
	}
	if x.judged == version && version != 0 {
		return x.holds, x.why
	}
	x.judged = version
	x.holds, x.why = x.evaluate(s)
	return x.holds, x.why
}

func (x *expectation) evaluate(s *State) (bool, string) {
	switch {
	case x.Object != nil:
		return x.objects(s)
	case x.Registry != nil:
		e, n := x.Registry, 0
		for _, r := range s.registry {
			if r.seq > x.since && x.request(r.what) {
				n++
			}
		}
		return counted(n, e.Count, "requests like it")
	case x.Log != nil:
		n := 0
		for _, l := range s.logs {
			if l.seq > x.since && scenario.Match(x.Log.Pod, l.what.Name) && (x.Log.Container == "" || x.Log.Container == l.what.Container) &&
				strings.Contains(l.what.Log, x.Log.Text) {
				n++
			}
		}
		return counted(n, x.Log.Count, "logs that hold it")
	case x.Node != nil:
		return x.machine(s)
	case x.Boots != nil:
		return x.booted(s)
	case x.whole != nil:
		return x.truth(x.whole, map[string]any{"now": s.Now()})
	}
	return false, "it says nothing"
}

func counted(n int, want *int, what string) (bool, string) {
	if want == nil {
		return n > 0, "there are no " + what
	}
	return n == *want, fmt.Sprintf("there are %d %s, not %d", n, what, *want)
}

func (x *expectation) request(r *history.Registry) bool {
	e := x.Registry
	return (e.Method == "" || e.Method == r.Method) && (e.Path == "" || scenario.Match(e.Path, strings.TrimPrefix(r.Path, "/v2/"))) &&
		(e.Account == "" || scenario.Match(e.Account, r.Account)) && (e.Caller == "" || scenario.Match(e.Caller, r.Caller)) &&
		(e.Status == 0 || e.Status == r.Status)
}

// objects judges a statement on objects.
func (x *expectation) objects(s *State) (bool, string) {
	e := x.Object
	named, matched := 0, 0
	why := ""
	s.Each(x.gvk.GroupKind(), func(o *unstructured.Unstructured) bool {
		if !x.named(o) {
			return true
		}
		named++
		ok, reason := x.matches(s, o, nil)
		if ok {
			matched++
		} else if why == "" || !strings.Contains(why, "\n") && named < 4 {
			if why != "" {
				why += "; "
			}
			why += o.GetName() + ": " + reason
		}
		return true
	})
	subject := strings.ToLower(x.gvk.Kind) + " " + e.Name
	switch {
	case e.Count != nil:
		if matched == *e.Count {
			return true, ""
		}
		message := fmt.Sprintf("%d of %d %s meet it, not %d", matched, named, subject, *e.Count)
		if why != "" {
			message += " (" + why + ")"
		}
		return false, message
	case named == 0:
		return false, "there is no " + subject
	case e.All:
		return matched == named, why
	default:
		return matched > 0, why
	}
}

func (x *expectation) named(o *unstructured.Unstructured) bool {
	return scenario.Match(x.Object.Name, o.GetName()) && (x.Object.Namespace == "" || o.GetNamespace() == "" || scenario.Match(x.Object.Namespace, o.GetNamespace()))
}

// matches judges the checks on one object.
func (x *expectation) matches(s *State, o, old *unstructured.Unstructured) (bool, string) {
	e := x.Object
	for _, c := range e.Conditions {
		if ok, why := condition(o, c); !ok {
			return false, why
		}
	}
	if e.Phase != "" {
		phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
		if !scenario.Match(e.Phase, phase) {
			return false, fmt.Sprintf("phase is %s, not %s", orNone(phase), e.Phase)
		}
	}
	if len(e.Row) > 0 || len(e.Columns) > 0 {
		if ok, why := x.row(s, o); !ok {
			return false, why
		}
	}
	if e.Matches != nil {
		if ok, why := subset(e.Matches, o.Object, ""); !ok {
			return false, why
		}
	}
	if x.where != nil {
		before := map[string]any(nil)
		if old != nil {
			before = old.Object
		}
		return x.truth(x.where, map[string]any{"object": o.Object, "oldObject": before, "now": s.Now()})
	}
	return true, ""
}

func orNone(s string) string {
	if s == "" {
		return "not set"
	}
	return s
}

func condition(o *unstructured.Unstructured, want scenario.Condition) (bool, string) {
	status := want.Status
	if status == "" {
		status = "True"
	}
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		m, ok := c.(map[string]any)
		if !ok || m["type"] != want.Type {
			continue
		}
		has := func(key string) string { text, _ := m[key].(string); return text }
		switch {
		case has("status") != status:
			return false, fmt.Sprintf("condition %s is %s, not %s (%s)", want.Type, has("status"), status, has("message"))
		case want.Reason != "" && !scenario.Match(want.Reason, has("reason")):
			return false, fmt.Sprintf("condition %s has reason %q, not %q", want.Type, has("reason"), want.Reason)
		case want.Message != "" && !scenario.Match(want.Message, has("message")):
			return false, fmt.Sprintf("condition %s has message %q, not %q", want.Type, has("message"), want.Message)
		}
		return true, ""
	}
	if status == "False" && want.Reason == "" && want.Message == "" {
		return true, "" // a condition that was never set doesn't hold
	}
	return false, "condition " + want.Type + " is not set"
}

// row compares with what `oc get` prints.
func (x *expectation) row(s *State, o *unstructured.Unstructured) (bool, string) {
	names, rows := store.TextOf(store.TableOf(x.columns, x.gvk, []*unstructured.Unstructured{o}, s.Now()))
	if len(rows) != 1 {
		return false, "no row is printed"
	}
	cells := rows[0]
	printed := strings.Join(cells, " ")
	if len(x.Object.Row) > len(cells) {
		return false, fmt.Sprintf("the row is %q, which has fewer cells", printed)
	}
	for n, want := range x.Object.Row {
		if !scenario.Match(want, cells[n]) {
			return false, fmt.Sprintf("the row is %q: %s is %s, not %s", printed, names[n], cells[n], want)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(x.Object.Columns)) {
		n := slices.Index(names, strings.ToUpper(name))
		if n < 0 {
			return false, fmt.Sprintf("there is no column %s: %s", name, strings.Join(names, " "))
		}
		if !scenario.Match(x.Object.Columns[name], cells[n]) {
			return false, fmt.Sprintf("the row is %q: %s is %s, not %s", printed, name, cells[n], x.Object.Columns[name])
		}
	}
	return true, ""
}

// subset says whether want is a part of have. Strings may hold *; null means that the field is absent.
func subset(want, have any, path string) (bool, string) {
	switch want := want.(type) {
	case map[string]any:
		m, ok := have.(map[string]any)
		if !ok {
			return false, fmt.Sprintf("%s is %s", orRoot(path), shown(have))
		}
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if ok, why := subset(want[k], m[k], path+"."+k); !ok {
				return false, why
			}
		}
		return true, ""
	case []any:
		list, ok := have.([]any)
		if !ok {
			return false, fmt.Sprintf("%s is %s", orRoot(path), shown(have))
		}
		for n, item := range want {
			if !slices.ContainsFunc(list, func(h any) bool { ok, _ := subset(item, h, ""); return ok }) {
				return false, fmt.Sprintf("%s has no item like number %d", orRoot(path), n+1)
			}
		}
		return true, ""
	case nil:
		return have == nil, fmt.Sprintf("%s is %s, not absent", orRoot(path), shown(have))
	case string:
		text, ok := have.(string)
		return ok && scenario.Match(want, text), fmt.Sprintf("%s is %s, not %q", orRoot(path), shown(have), want)
	default:
		return fmt.Sprint(want) == fmt.Sprint(have), fmt.Sprintf("%s is %s, not %v", orRoot(path), shown(have), want)
	}
}

func orRoot(path string) string {
	if path == "" {
		return "it"
	}
	return strings.TrimPrefix(path, ".")
}

func shown(v any) string {
	if v == nil {
		return "not set"
	}
	text := fmt.Sprintf("%v", v)
	if s, ok := v.(string); ok {
		text = fmt.Sprintf("%q", s)
	}
	if len(text) > 120 {
		text = text[:117] + "..."
	}
	return text
}

// machine judges the machines below nodes, as their last boot left them.
func (x *expectation) machine(s *State) (bool, string) {
	e, named, matched, why := x.Node, 0, 0, ""
	s.machines.Scan(func(name string, n *history.Node) bool {
		if !scenario.Match(e.Name, name) {
			return true
		}
		named++
		if wrong := differs(e, n); wrong == "" {
			matched++
		} else if why == "" {
			why = name + " " + wrong
		}
		return true
	})
	switch {
	case e.Count != nil && matched != *e.Count:
		why = strings.TrimSuffix(" ("+why+")", " ()")
		return false, fmt.Sprintf("%d of %d machines %s meet it, not %d%s", matched, named, e.Name, *e.Count, why)
	case e.Count != nil:
		return true, ""
	case named == 0:
		return false, "no machine " + e.Name + " ever booted"
	}
	return matched == named, why
}

// differs says how a machine differs from what is expected of it; "" if it doesn't.
func differs(e *scenario.NodeExpectation, n *history.Node) string {
	switch {
	case e.Booted == "layered" && !n.Layered, e.Booted == "base" && n.Layered:
		return "is booted into " + n.Image
	case e.Booted != "" && e.Booted != "layered" && e.Booted != "base" && !scenario.Match(e.Booted, n.Image):
		return fmt.Sprintf("is booted into %s, not %s", n.Image, e.Booted)
	}
	for _, p := range e.Packages {
		if !hasPackage(n.RPMs, p) {
			return "has no package " + p
		}
	}
	for _, p := range e.Without {
		if hasPackage(n.RPMs, p) {
			return "has package " + p
		}
	}
	lines := strings.Split(n.Status, "\n")
	for _, want := range e.Status {
		if !slices.ContainsFunc(lines, func(l string) bool { return scenario.Match(want, strings.TrimSpace(l)) }) {
			return fmt.Sprintf("prints no line like %q in rpm-ostree status:\n%s", want, n.Status)
		}
	}
	return ""
}

// hasPackage looks for a package by its name, or by its whole name, version, release and architecture.
func hasPackage(rpms []string, name string) bool {
	return slices.ContainsFunc(rpms, func(rpm string) bool {
		if rpm == name || scenario.Match(name, rpm) {
			return true
		}
		rest, ok := strings.CutPrefix(rpm, name+"-")
		return ok && strings.Count(rest, "-") == 1
	})
}

func (x *expectation) booted(s *State) (bool, string) {
	for _, pattern := range slices.Sorted(maps.Keys(x.Boots.Boots)) {
		named := 0
		for _, name := range slices.Sorted(maps.Keys(s.boots)) {
			if !scenario.Match(pattern, name) {
				continue
			}
			named++
			if n := s.boots[name] - x.boots[name]; n != x.Boots.Boots[pattern] {
				return false, fmt.Sprintf("%s booted %d times, not %d", name, n, x.Boots.Boots[pattern])
			}
		}
		if named == 0 && x.Boots.Boots[pattern] > 0 {
			return false, "no machine " + pattern + " ever booted"
		}
	}
	return true, ""
}

// remember counts objects for statements over the whole run.
func (x *expectation) remember(s *State, c *history.Change) {
	if x.Object == nil || c.New == nil || c.GVK.GroupKind() != x.gvk.GroupKind() || !x.named(c.New) {
		return
	}
	uid := string(c.New.GetUID())
	if x.ever[uid] {
		return
	}
	if ok, _ := x.matches(s, c.New, c.Old); ok {
		if x.ever == nil {
			x.ever = map[string]bool{}
		}
		x.ever[uid] = true
		x.first = append(x.first, s.Time)
	}
}

// stamps is how exact times are that controllers reckon from: those of objects have whole seconds.
const stamps = time.Second

// judgeEver says whether the statement was true over the run.
func (x *expectation) judgeEver(s *State) (bool, string) {
	if x.Object == nil {
		return x.evaluate(s)
	}
	if ok, why := counted(len(x.ever), x.Object.Count, "objects that ever met it"); !ok {
		return false, why
	}
	for n, apart := range x.Object.Apart {
		if n+1 >= len(x.first) {
			return false, fmt.Sprintf("only %d objects ever met it", len(x.first))
		}
		if d := x.first[n+1] - x.first[n]; d+stamps < apart {
			return false, fmt.Sprintf("number %d came %s after number %d, not at least %s", n+2, d, n+1, apart)
		}
	}
	return true, ""
}

// truth evaluates a CEL program. An expression that can't be evaluated, for example because a field isn't there, is
// false, and says so.
func (x *expectation) truth(p cel.Program, vars map[string]any) (bool, string) {
	v, _, err := p.Eval(vars)
	x.evaluated++
	if err != nil {
		x.broken++
		x.last = err
		return false, err.Error()
	}
	return v == types.True, "the expression is false"
}
