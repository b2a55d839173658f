package scenario

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/google/cel-go/cel"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/ext"
	"k8s.io/apiserver/pkg/cel/library"
)

// Lister returns all objects of a kind as JSON data (map[string]any), ordered by namespace and name.
type Lister func(Kind) []any

// NewObjectEnv returns the environment of a where expression: object, in rules also oldObject (null on creation), and
// now, the timestamp of the instant that is judged. Besides CEL's own there are the string functions of cel-go, the
// list, regex and quantity functions of Kubernetes, and text.glob("layered-*").
func NewObjectEnv() (*cel.Env, error) {
	return cel.NewEnv(append(common(), cel.Variable("object", cel.DynType), cel.Variable("oldObject", cel.DynType))...)
}

// NewStateEnv returns the environment of a true expression: now, list("kind"), all objects of a kind, and
// get("kind", "name") or get("kind", "namespace/name"), one object; an object that doesn't exist is an error, and an
// expression that fails is not true. What lister returns is asked anew in each evaluation; it may be nil where nothing
// is evaluated.
func NewStateEnv(lister Lister) (*cel.Env, error) {
	list := func(word ref.Val) ([]any, Kind, error) {
		kind, ok := FindKind(fmt.Sprint(word.Value()))
		if !ok || lister == nil {
			return nil, kind, fmt.Errorf("no kind %q", word.Value())
		}
		return lister(kind), kind, nil
	}
	adapter := types.DefaultTypeAdapter
	return cel.NewEnv(append(common(),
		cel.Function("list", cel.Overload("list_string", []*cel.Type{cel.StringType}, cel.ListType(cel.DynType),
			cel.UnaryBinding(func(word ref.Val) ref.Val {
				objects, _, err := list(word)
				if err != nil {
					return types.WrapErr(err)
				}
				return adapter.NativeToValue(objects)
			}))),
		cel.Function("get", cel.Overload("get_string_string", []*cel.Type{cel.StringType, cel.StringType}, cel.DynType,
			cel.BinaryBinding(func(word, name ref.Val) ref.Val {
				objects, kind, err := list(word)
				if err != nil {
					return types.WrapErr(err)
				}
				namespace, base, found := strings.Cut(fmt.Sprint(name.Value()), "/")
				if !found {
					namespace, base = kind.Namespace, namespace
				}
				for _, object := range objects {
					data, _ := object.(map[string]any)
					meta, _ := data["metadata"].(map[string]any)
					if ns, _ := meta["namespace"].(string); meta["name"] == base && Match(namespace, ns) {
						return adapter.NativeToValue(data)
					}
				}
				return types.NewErr("no %s %s", kind.Kind, name.Value())
			}))),
	)...)
}

func common() []cel.EnvOption {
	return []cel.EnvOption{
		cel.OptionalTypes(), cel.CrossTypeNumericComparisons(true),
		ext.Strings(), ext.Sets(), library.Lists(), library.Regex(), library.Quantity(),
		cel.Variable("now", cel.TimestampType),
		cel.Function("glob", cel.MemberOverload("string_glob_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
			cel.BinaryBinding(func(text, glob ref.Val) ref.Val {
				return types.Bool(Match(fmt.Sprint(glob.Value()), fmt.Sprint(text.Value())))
			}))),
	}
}

// cel compiles an expression that must say true or false, and checks the fields that it names against the API's types.
// kind is that of object, nil where there is none.
func (p *problems) cel(field string, n *node, env *cel.Env, kind *Kind, rule bool) (string, bool) {
	if b, is := n.value.(bool); is && n.kind == scalarNode {
		p.fail(n, field, n.text, fmt.Sprintf("is always %v", b), "an expression over the cluster")
		return "", false
	}
	text, ok := p.string(field, n)
	if !ok {
		return "", false
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			p.fail(n, field, n.show(), "is not a CEL expression",
				fmt.Sprintf("at %d:%d of it, %s", e.Location.Line(), e.Location.Column()+1, strings.TrimSpace(e.Message)))
		}
		return "", false
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		p.fail(n, field, n.show(), "is neither true nor false but "+t.String(), "a comparison, e.g. object.spec.paused == true")
		return "", false
	}
	if ast.NativeRep().Expr().Kind() == celast.LiteralKind {
		p.fail(n, field, n.show(), "is always the same", "an expression over the cluster")
		return "", false
	}
	check := &celFields{problems: p, node: n, field: field, rule: rule, ok: true}
	scope := map[string]reflect.Type{}
	if kind != nil {
		scope["object"], scope["oldObject"] = kind.object, kind.object
	}
	check.typeOf(ast.NativeRep().Expr(), scope)
	return text, check.ok
}

// celFields walks an expression and reports fields that no object of the kind can have: such an expression would fail
// wherever it is evaluated, and a rule of never with it could never be broken.
type celFields struct {
	*problems
	node  *node
	field string
	rule  bool
	ok    bool
}

func (c *celFields) wrong(value, rule, instead string) {
	c.fail(c.node, c.field, strconv.Quote(value), rule, instead)
	c.ok = false
}

// typeOf returns the Go type of what the expression stands for, or nil where it isn't known.
func (c *celFields) typeOf(e celast.Expr, scope map[string]reflect.Type) reflect.Type {
	switch e.Kind() {
	case celast.IdentKind:
		if e.AsIdent() == "oldObject" && !c.rule {
			c.wrong("oldObject", "exists only in rules", "use it below never or always")
		}
		return scope[e.AsIdent()]
	case celast.SelectKind:
		return c.member(c.typeOf(e.AsSelect().Operand(), scope), e.AsSelect().FieldName())
	case celast.ListKind:
		for _, item := range e.AsList().Elements() {
			c.typeOf(item, scope)
		}
	case celast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			c.typeOf(entry.AsMapEntry().Key(), scope)
			c.typeOf(entry.AsMapEntry().Value(), scope)
		}
	case celast.CallKind:
		return c.call(e.AsCall(), scope)
	case celast.ComprehensionKind:
		return c.comprehension(e.AsComprehension(), scope)
	}
	return nil
}

func (c *celFields) member(t reflect.Type, name string) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil || writesItself(t):
		return nil
	case t.Kind() == reflect.Map:
		return t.Elem()
	case t.Kind() == reflect.Struct:
		found, names := jsonField(t, name)
		if found == nil {
			c.wrong(name, "is not a field of "+t.Name(), oneOf(name, names))
		}
		return found
	}
	return nil
}

func element(t reflect.Type) reflect.Type {
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Map) {
		return t.Elem()
	}
	return nil
}

func constant(e celast.Expr) (string, bool) {
	if e.Kind() != celast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().Value().(string)
	return s, ok
}

func (c *celFields) call(call celast.CallExpr, scope map[string]reflect.Type) reflect.Type {
	if call.IsMemberFunction() {
		c.typeOf(call.Target(), scope)
	}
	args := make([]reflect.Type, len(call.Args()))
	for i, arg := range call.Args() {
		args[i] = c.typeOf(arg, scope)
	}
	switch name := call.FunctionName(); name {
	case operators.Index:
		if key, ok := constant(call.Args()[1]); ok {
			return c.member(args[0], key)
		}
		return element(args[0])
	case operators.Conditional:
		return args[1]
	case "list", "get":
		word, ok := constant(call.Args()[0])
		if !ok {
			return nil
		}
		kind, known := FindKind(word)
		switch {
		case !known:
			c.wrong(word, "is not a kind", oneOfKinds(word))
		case name == "get":
			return kind.object
		default:
			return reflect.SliceOf(kind.object)
		}
	}
	return nil
}

func (c *celFields) comprehension(e celast.ComprehensionExpr, scope map[string]reflect.Type) reflect.Type {
	over := c.typeOf(e.IterRange(), scope)
	c.typeOf(e.AccuInit(), scope)
	inner := make(map[string]reflect.Type, len(scope)+3)
	for name, t := range scope {
		inner[name] = t
	}
	delete(inner, e.AccuVar())
	delete(inner, e.IterVar())
	delete(inner, e.IterVar2())
	if over != nil && over.Kind() == reflect.Slice {
		inner[e.IterVar()] = over.Elem()
	}
	for _, part := range []celast.Expr{e.LoopCondition(), e.LoopStep(), e.Result()} {
		c.typeOf(part, inner)
	}
	// filter gives a list of the same type: its step is condition ? result + [item] : result.
	if step := e.LoopStep(); step.Kind() == celast.CallKind && step.AsCall().FunctionName() == operators.Conditional {
		if then := step.AsCall().Args()[1]; then.Kind() == celast.CallKind && then.AsCall().FunctionName() == operators.Add {
			added := then.AsCall().Args()[1]
			if added.Kind() == celast.ListKind && len(added.AsList().Elements()) == 1 {
				item := added.AsList().Elements()[0]
				if item.Kind() == celast.IdentKind && item.AsIdent() == e.IterVar() {
					return over
				}
			}
		}
	}
	return nil
}
