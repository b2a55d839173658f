package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
)

// environments are the CEL environments that files are checked with.
type environments struct{ object, state *cel.Env }

func newEnvironments() (*environments, error) {
	object, err := NewObjectEnv()
	if err != nil {
		return nil, fmt.Errorf("make the CEL environment of where: %w", err)
	}
	state, err := NewStateEnv(nil)
	if err != nil {
		return nil, fmt.Errorf("make the CEL environment of true: %w", err)
	}
	return &environments{object: object, state: state}, nil
}

// Fields of a step, or of a file, that hold expectations.
const (
	inExpect  = "expect"
	inOrder   = "in order"
	inSettles = "settles"
	inEver    = "ever"
	inNever   = "never"
	inAlways  = "always"
)

// expectations reads a list of expectations, or a mapping of them. since and until hold for all of a mapping.
func (r *reading) expectations(field string, n *node) []Expectation {
	var out []Expectation
	r.list(field, n, func(item *node) bool {
		stated := item.without(inSince, inUntil)
		if stated.kind != mappingNode || len(stated.keys) == 0 {
			value := item.show()
			if stated.kind == mappingNode && len(item.keys) > 0 {
				value = "nothing but since or until"
			}
			r.fail(item, field, value, "is not an expectation", "{machineosbuild layered-*: {condition: Failed}}")
			return false
		}
		span, _ := r.span(item, r.releases)
		for i := range stated.keys {
			if e, ok := r.expectation(field, stated.keys[i], stated.values[i]); ok {
				e.Span = span
				out = append(out, e)
			}
		}
		return true
	})
	return out
}

func (r *reading) expectation(field string, k, v *node) (Expectation, bool) {
	e := Expectation{Pos: k.pos, Text: k.text}
	if !v.null() {
		e.Text += ": " + v.flow()
	}
	head, rest, _ := strings.Cut(k.text, " ")
	before := len(r.errs)
	for _, within := range []string{inSince, inUntil} {
		// A number would be that of a node's boots.
		if at := v.get(within); at != nil && at.kind == scalarNode && !isInteger(at) {
			r.fail(v.key(within), field, strconv.Quote(within), "stands beside an expectation, not in it",
				fmt.Sprintf("{%s: %q, %s: ...}", within, at.text, k.text))
			return e, false
		}
	}
	if w, found := FindWord(head); found && w.expect != nil {
		if field == inAlways && !w.state {
			r.fail(k, field, k.show(), "happens, and is not a state that can last", "use never, or expect in a step")
			return e, false
		}
		name := *k
		name.text = strings.TrimSpace(rest)
		name.value = name.text
		switch {
		case w.named && rest == "":
			r.fail(k, field, k.show(), "names nothing", w.Example)
			return e, false
		case !w.named && rest != "":
			r.fail(k, field, k.show(), "is not an expectation", fmt.Sprintf("%q stands alone, e.g. %s", head, w.Example))
			return e, false
		}
		w.expect(r, field, &name, v, &e)
		return e, len(r.errs) == before
	}
	if _, known := FindKind(head); !known {
		words := kindWords()
		for _, w := range Words() {
			if w.expect != nil && w.Name != objectWord {
				words = append(words, w.Name)
			}
		}
		instead := `a kind and a name, e.g. "machineosbuild layered-*", or boots, log, machine, registry, true`
		if near := nearest(head, words); near != "" {
			instead = fmt.Sprintf("did you mean %q?", near)
		}
		r.fail(k, field, strconv.Quote(head), "is not a kind and not an expectation", instead)
		return e, false
	}
	expectObject(r, field, k, v, &e)
	return e, len(r.errs) == before
}

// counts are the shorthands for a pool's counts.
var counts = map[string]string{
	"machines": "machineCount", "ready": "readyMachineCount", "updated": "updatedMachineCount",
	"degraded": "degradedMachineCount", "unavailable": "unavailableMachineCount",
}

// objectFields are the checks on objects.
var objectFields = []string{
	"all", "apart", "columns", "condition", "count", "degraded", "exists", "machines", "matches", "phase", "ready", "row",
	"unavailable", "updated", "where",
}

func expectObject(r *reading, field string, k, v *node, e *Expectation) {
	ref, kind, ok := r.ref(field, k)
	if !ok {
		return
	}
	o := &ObjectExpectation{Ref: ref}
	e.Object = o
	if v.null() {
		return
	}
	status := map[string]any{}
	r.fields(v, field, "a check of a "+kind.Kind, objectFields, func(key string, kn, v *node) {
		switch key {
		case "all":
			o.All, _ = r.boolean(key, v)
		case "apart":
			if field != inEver {
				r.fail(kn, key, "it", "counts matches over time", "use it below ever")
			}
			r.list(key, v, func(item *node) bool {
				d, ok := r.duration(key, item)
				o.Apart = append(o.Apart, d)
				return ok
			})
		case "columns":
			r.columns(key, v, kind, o)
		case "condition":
			r.conditions(key, v, kind, o)
		case "count":
			if c, ok := r.integer(key, v, 0); ok {
				n := int(c)
				o.Count = &n
			}
		case "exists":
			if exists, ok := r.boolean(key, v); ok && !exists {
				o.Count = new(int)
			}
		case "degraded", "machines", "ready", "unavailable", "updated":
			if kind.Kind != "MachineConfigPool" {
				r.fail(kn, key, "it", "counts the machines of a pool, and a "+kind.Kind+" has none", "matches or columns")
				return
			}
			if c, ok := r.integer(key, v, 0); ok {
				status[counts[key]] = c
			}
		case "matches":
			if v.kind != mappingNode || len(v.keys) == 0 {
				r.fail(v, key, v.show(), "matches nothing", "a part of the object, e.g. {status: {readyMachineCount: 2}}")
				return
			}
			r.checkFields(key, v, kind.object, kind.Kind)
			o.Matches, _ = v.data().(map[string]any)
		case "phase":
			if kind.Phases == nil {
				r.fail(kn, key, "it", "is no field of a "+kind.Kind, "condition, matches or where")
				return
			}
			o.Phase, _ = r.choice(key, v, kind.Phases...)
		case "row":
			r.row(key, v, kind, o)
		case "where":
			o.Where, _ = r.cel(key, v, r.objects.object, &kind, field == inNever || field == inAlways)
		}
	})
	if len(status) > 0 {
		o.Matches = withStatus(o.Matches, status)
	}
	r.canHold(field, v, o, status)
}

// withStatus adds fields of status to a pattern.
func withStatus(matches map[string]any, status map[string]any) map[string]any {
	if matches == nil {
		matches = map[string]any{}
	}
	given, _ := matches["status"].(map[string]any)
	for key, value := range given {
		if _, twice := status[key]; !twice {
			status[key] = value
		}
	}
	matches["status"] = status
	return matches
}

// canHold reports checks that contradict each other.
func (r *reading) canHold(field string, v *node, o *ObjectExpectation, status map[string]any) {
	never := func(value, rule, instead string) { r.fail(v, field, value, rule, instead) }
	exists := v.get("exists")
	switch {
	case v.get("count") != nil && exists != nil:
		never("count together with exists", "says the same thing twice", "one of them")
	case o.All && o.Count != nil && *o.Count == 0:
		never("all together with count 0", "can never hold", "all needs at least one object; leave one of them out")
	}
	if o.Apart != nil && (o.Count == nil || len(o.Apart) != *o.Count-1) {
		never(fmt.Sprintf("apart with %d gaps", len(o.Apart)), "can never hold",
			fmt.Sprintf("count: %d, one more than the gaps", len(o.Apart)+1))
	}
	if total, ok := status["machineCount"].(int64); ok {
		for _, key := range []string{"degraded", "ready", "unavailable", "updated"} {
			if part, ok := status[counts[key]].(int64); ok && part > total {
				never(fmt.Sprintf("%s: %d of machines: %d", key, part, total), "can never hold", fmt.Sprintf("at most %d", total))
			}
		}
	}
	seen := map[string]string{}
	for _, c := range o.Conditions {
		if first, twice := seen[c.Type]; twice && first != c.Status {
			never(fmt.Sprintf("%s=%s and %s=%s", c.Type, first, c.Type, c.Status), "can never hold together", "one of them")
		}
		seen[c.Type] = c.Status
	}
}

// conditionStatuses are what a condition's status can be.
var conditionStatuses = []string{"True", "False", "Unknown"}

func (r *reading) conditions(field string, n *node, kind Kind, o *ObjectExpectation) {
	typed := func(at *node, s string) string {
		if kind.Conditions != nil && !slices.Contains(kind.Conditions, s) {
			r.fail(at, field, strconv.Quote(s), "is not a condition of a "+kind.Kind, oneOf(s, kind.Conditions))
		}
		return s
	}
	r.list(field, n, func(item *node) bool {
		c := Condition{Status: "True"}
		if item.kind == scalarNode {
			s, ok := r.string(field, item)
			if !ok {
				return false
			}
			word, status, given := strings.Cut(s, "=")
			c.Type = typed(item, word)
			if given {
				c.Status = status
				if !slices.Contains(conditionStatuses, status) {
					r.fail(item, field, strconv.Quote(status), "is not the status of a condition", oneOf(status, conditionStatuses))
				}
			}
			o.Conditions = append(o.Conditions, c)
			return true
		}
		r.fields(item, field, "a condition", []string{"type", "status", "reason", "message"}, func(key string, _, v *node) {
			switch key {
			case "type":
				if s, ok := r.string(key, v); ok {
					c.Type = typed(v, s)
				}
			case "status":
				// True without quotes is a YAML boolean, and nobody should have to care.
				status, _ := r.text(key, v)
				if b, is := v.value.(bool); is {
					status = map[bool]string{true: "True", false: "False"}[b]
				}
				if c.Status = status; !slices.Contains(conditionStatuses, status) {
					r.fail(v, key, v.show(), "is not the status of a condition", oneOf(status, conditionStatuses))
				}
			case "reason":
				c.Reason, _ = r.string(key, v)
			case "message":
				c.Message, _ = r.string(key, v)
			}
		})
		if item.kind == mappingNode && item.get("type") == nil {
			r.fail(item, field, "the condition", "has no type", "type: Updated")
		}
		o.Conditions = append(o.Conditions, c)
		return true
	})
}

func (r *reading) columns(field string, n *node, kind Kind, o *ObjectExpectation) {
	if n.kind != mappingNode || len(n.keys) == 0 {
		r.fail(n, field, n.show(), "names no column", "{READYMACHINECOUNT: 0}")
		return
	}
	o.Columns = map[string]string{}
	for i, k := range n.keys {
		if !slices.Contains(kind.Columns, k.text) {
			r.fail(k, field, k.show(), "is not a column of "+kind.Aliases[0], oneOf(k.text, kind.Columns))
			continue
		}
		if text, ok := r.text(field, n.values[i]); ok {
			o.Columns[k.text] = cell(n.values[i], text)
		}
	}
}

// cell writes YAML's true and false as tables of conditions do.
func cell(n *node, text string) string {
	if b, is := n.value.(bool); is {
		return map[bool]string{true: "True", false: "False"}[b]
	}
	return text
}

func (r *reading) row(field string, n *node, kind Kind, o *ObjectExpectation) {
	if n.kind == sequenceNode {
		for _, item := range n.values {
			if text, ok := r.text(field, item); ok {
				o.Row = append(o.Row, cell(item, text))
			}
		}
	} else if text, ok := r.string(field, n); ok {
		o.Row = strings.Fields(text)
	}
	if len(o.Row) > len(kind.Columns) {
		r.fail(n, field, fmt.Sprintf("a row of %d cells", len(o.Row)), "can never hold",
			fmt.Sprintf("%s have %d columns: %s", kind.Aliases[0], len(kind.Columns), strings.Join(kind.Columns, ", ")))
	}
}

func expectRegistry(r *reading, field string, _, v *node, e *Expectation) {
	x := &RegistryExpectation{}
	e.Registry = x
	r.fields(v, field, "a request to the registry", []string{"method", "path", "account", "caller", "status", "count"}, func(key string, _, v *node) {
		switch key {
		case "method":
			x.Method, _ = r.choice(key, v, methods...)
		case "path":
			x.Path, _ = r.glob(key, v)
		case "account":
			if x.Account, _ = r.glob(key, v); x.Account != "" && !strings.ContainsAny(x.Account, "*?") {
				r.knownAccount(key, v, x.Account)
			}
		case "caller":
			x.Caller, _ = r.glob(key, v)
		case "status":
			status, ok := r.integer(key, v, 100)
			if ok && status > 599 {
				r.fail(v, key, v.show(), "is not an HTTP status", "a number from 100 to 599")
			}
			x.Status = int(status)
		case "count":
			if c, ok := r.integer(key, v, 0); ok {
				n := int(c)
				x.Count = &n
			}
		}
	})
}

func expectLog(r *reading, field string, k, v *node, e *Expectation) {
	x := &LogExpectation{}
	e.Log = x
	if r.isGlob(field, k, k.text) {
		x.Pod = k.text
	}
	if v.kind == scalarNode {
		x.Text, _ = r.string("log", v)
		return
	}
	r.fields(v, field, "a log", []string{"text", "container", "count"}, func(key string, _, v *node) {
		switch key {
		case "text":
			x.Text, _ = r.string(key, v)
		case "container":
			x.Container, _ = r.string(key, v)
		case "count":
			if c, ok := r.integer(key, v, 0); ok {
				n := int(c)
				x.Count = &n
			}
		}
	})
	if v.kind == mappingNode && v.get("text") == nil {
		r.fail(v, field, "the log", "holds no text", `text: "a part of a line"`)
	}
}

// machineFields are the checks on the machine below a Node.
var machineFields = []string{"booted", "count", "packages", "rpm-ostree status", "without"}

func expectMachine(r *reading, field string, k, v *node, e *Expectation) {
	x := &NodeExpectation{}
	e.Node = x
	if !r.isGlob(field, k, k.text) {
		return
	}
	x.Name = k.text
	r.knownNode(field, k, k.text)
	if v.kind == mappingNode {
		for _, key := range v.keys {
			if key.text != "count" && slices.Contains(objectFields, key.text) {
				r.fail(key, field, key.show(), "is not a field of a machine below a Node",
					fmt.Sprintf("for the object of kind Machine write %q", "machines "+k.text))
				return
			}
		}
	}
	r.fields(v, field, "a machine", machineFields, func(key string, _, v *node) {
		switch key {
		case "booted":
			if x.Booted, _ = r.glob(key, v); x.Booted != "" && x.Booted != "layered" && x.Booted != "base" && !strings.ContainsAny(x.Booted, "/*") {
				r.fail(v, key, v.show(), "is not an image", "layered, base, or an image reference, e.g. */os-image@sha256:*")
			}
		case "count":
			if c, ok := r.integer(key, v, 0); ok {
				n := int(c)
				x.Count = &n
			}
		case "packages":
			x.Packages, _ = r.strings(key, v)
		case "without":
			x.Without, _ = r.strings(key, v)
		case "rpm-ostree status":
			x.Status, _ = r.strings(key, v)
		}
	})
	for _, name := range x.Packages {
		if slices.Contains(x.Without, name) {
			r.fail(v, field, strconv.Quote(name), "can't be there and not be there", "packages or without")
		}
	}
	if v.kind == mappingNode && len(v.keys) == 0 {
		r.fail(v, field, "the machine", "is not looked at", "booted: layered")
	}
}

func isInteger(n *node) bool {
	_, is := n.value.(int64)
	return is
}

func expectBoots(r *reading, field string, _, v *node, e *Expectation) {
	if v.kind != mappingNode || len(v.keys) == 0 {
		r.fail(v, field, v.show(), "counts no boots", "{layered-*: 1}")
		return
	}
	x := &BootsExpectation{Boots: map[string]int{}}
	e.Boots = x
	for i, k := range v.keys {
		if r.isGlob(field, k, k.text) {
			r.knownNode(field, k, k.text)
		}
		c, _ := r.integer("boots", v.values[i], 0)
		x.Boots[k.text] = int(c)
	}
}

func expectTrue(r *reading, field string, _, v *node, e *Expectation) {
	e.CEL, _ = r.cel("true", v, r.objects.state, nil, false)
}

// rules reads never or always: a list of mappings from a name to an expectation.
func (r *reading) rules(field string, n *node) []Rule {
	var out []Rule
	r.list(field, n, func(item *node) bool {
		example := "- a build is interrupted: {machineosbuild *: {condition: Interrupted}}"
		if item.kind != mappingNode || len(item.keys) == 0 {
			r.fail(item, field, item.show(), "is not a rule", example)
			return false
		}
		for i, k := range item.keys {
			v := item.values[i]
			if v.kind == scalarNode && (k.text == inSince || k.text == inUntil) {
				r.fail(k, field, k.show(), "stands beside the expectation of a rule, not beside its name",
					fmt.Sprintf("- a build is interrupted: {%s: %q, machineosbuild *: {condition: Interrupted}}", k.text, v.text))
				continue
			}
			stated := v.without(inSince, inUntil)
			if stated.kind != mappingNode || len(stated.keys) != 1 {
				r.fail(v, field, v.show(), "is not the expectation of a rule", example)
				continue
			}
			span, _ := r.span(v, r.releases)
			if e, ok := r.expectation(field, stated.keys[0], stated.values[0]); ok {
				e.Span = span
				out = append(out, Rule{Name: k.text, Pos: k.pos, Expectation: e})
			}
		}
		return true
	})
	return out
}

// DefaultWithin is the time that a step has for its expectations when it doesn't say.
const DefaultWithin = 2 * time.Hour

// stepFields are the fields of a step that are not actions.
var stepFields = []string{inSince, inUntil, "within", inExpect, inOrder, inSettles, inEver, inNever, inAlways, "for"}

func (r *reading) step(n *node) (Step, bool) {
	if n.kind != mappingNode || len(n.keys) != 1 {
		r.fail(n, "steps", n.show(), "is not a step", "one name and below it what happens: \"- ask for an image: {apply: fixtures/layered.yaml}\"")
		return Step{}, false
	}
	s := Step{Name: n.keys[0].text, Pos: n.keys[0].pos, Within: DefaultWithin}
	body := n.values[0]
	said := body.without(inSince, inUntil)
	if body.null() || said.kind == mappingNode && len(said.keys) == 0 {
		r.fail(n.keys[0], "steps", n.keys[0].show(), "is an empty step", "at least one action or expectation")
		return s, false
	}
	around := r.releases
	defer func() { r.releases = around }()
	s.Span, r.releases = r.span(body, around)
	known := slices.Clone(stepFields)
	for _, w := range Words() {
		if w.act != nil {
			known = append(known, w.Name)
		}
	}
	r.fields(body, "steps", "a step", known, func(key string, k, v *node) {
		switch key {
		case inSince, inUntil: // already read: all else in the step needs them
		case "within":
			s.Within, _ = r.duration(key, v)
		case inExpect:
			s.Expect = r.expectations(key, v)
		case inOrder:
			s.InOrder = r.expectations(key, v)
		case inSettles:
			s.Settles = r.expectations(key, v)
		case inEver:
			s.Ever = r.expectations(key, v)
		case inNever:
			s.Never = r.rules(key, v)
		case inAlways:
			s.Always = r.rules(key, v)
		case "for":
			s.For, _ = r.duration(key, v)
		default:
			w, _ := FindWord(key)
			for _, a := range w.act(r, v) {
				a.Verb, a.Pos = key, k.pos
				s.Actions = append(s.Actions, a)
			}
		}
	})
	if body.kind != mappingNode {
		return s, false
	}
	if within := body.key("within"); within != nil && body.get(inExpect) == nil && body.get(inOrder) == nil && body.get(inSettles) == nil {
		r.fail(within, "steps", "within", "bounds nothing", "expect, in order or settles in the same step")
	}
	if (body.get(inNever) != nil || body.get(inAlways) != nil) && len(said.keys) == 1 {
		r.fail(body, "steps", "the step", "ends where it begins, so its rules say nothing", "an action, an expectation or for: 5m")
	}
	return s, true
}
