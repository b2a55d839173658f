package main

import (
	"go/ast"
	"go/types"
	"slices"
	"strings"
)

const meta = "k8s.io/apimachinery/pkg/apis/meta/v1"

// banned lists what must not be used. Names are written as [types.Func.FullName] writes them; "package.*" stands for
// all functions and variables of a package but those in except.
var banned = []struct {
	rule, instead string
	names, except []string
}{{
	rule: "walltime", instead: "take the time from the clock that was given, and wait by RequeueAfter",
	names: []string{
		"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc", "time.Tick",
		"time.NewTimer", "time.NewTicker",
		"context.WithTimeout", "context.WithTimeoutCause", "context.WithDeadline", "context.WithDeadlineCause",
		meta + ".Now", meta + ".NowMicro",
		"k8s.io/utils/clock.RealClock",
		// They sleep between tries.
		"k8s.io/apimachinery/pkg/util/wait.*", "k8s.io/client-go/util/retry.*",
	},
}, {
	rule: "goroutine", instead: "declare a component, or requeue",
	names: []string{
		"(*sync.WaitGroup).Go", "(*golang.org/x/sync/errgroup.Group).Go", "(*golang.org/x/sync/errgroup.Group).TryGo",
		"context.AfterFunc",
	},
}, {
	rule: "random", instead: "draw from the seeded source that was given",
	names: []string{
		"math/rand.*", "math/rand/v2.*", "crypto/rand.*", "hash/maphash.MakeSeed", "hash/maphash.Comparable",
		"k8s.io/apimachinery/pkg/util/rand.*", "k8s.io/apimachinery/pkg/util/uuid.NewUUID",
		"k8s.io/apiserver/pkg/storage/names.SimpleNameGenerator", "github.com/google/uuid.*",
	},
	except: []string{
		"math/rand.New", "math/rand.NewSource", "math/rand.NewZipf",
		"math/rand/v2.New", "math/rand/v2.NewPCG", "math/rand/v2.NewChaCha8", "math/rand/v2.NewZipf",
		"github.com/google/uuid.NewSHA1", "github.com/google/uuid.NewHash", "github.com/google/uuid.FromBytes",
		"github.com/google/uuid.Parse", "github.com/google/uuid.Must", "github.com/google/uuid.NewRandomFromReader",
		// An encoding and a hash; they draw nothing.
		"k8s.io/apimachinery/pkg/util/rand.SafeEncodeString",
	},
}, {
	rule: "maporder", instead: "go through the keys in sorted order",
	names: []string{
		"(k8s.io/apimachinery/pkg/util/sets.Set[T]).UnsortedList", "(k8s.io/apimachinery/pkg/util/sets.Set[T]).PopAny",
		"(*sync.Map).Range", "(reflect.Value).MapKeys", "(reflect.Value).MapRange", "(reflect.Value).Seq2",
	},
}}

// conditionSetters stamp a condition that has no transition time with the wall clock's.
var conditionSetters = []string{
	"k8s.io/apimachinery/pkg/api/meta.SetStatusCondition",
}

// uses checks every mention of a function or variable of another package, so that a banned function is found too where
// it is passed on and not called.
func (c *checker) uses() {
	for at := range c.tree.Preorder((*ast.Ident)(nil), (*ast.CallExpr)(nil)) {
		switch node := at.Node().(type) {
		case *ast.Ident:
			object := c.TypesInfo.Uses[node]
			if object == nil || object.Pkg() == nil || object.Pkg() == c.Pkg {
				continue
			}
			name := fullName(object)
			for _, ban := range banned {
				if !slices.Contains(ban.except, name) &&
					(slices.Contains(ban.names, name) || slices.Contains(ban.names, wholePackage(object))) {
					c.report(node.Pos(), ban.rule, name+"; "+ban.instead)
				}
			}
		case *ast.CallExpr:
			called := c.callee(node)
			if called != nil && slices.Contains(conditionSetters, fullName(called)) && !setsTime(node.Args) {
				c.report(node.Pos(), "walltime", called.Name()+" takes the wall time unless LastTransitionTime is set")
			}
		}
	}
}

// callee returns the function or builtin that a call calls, or nil if that is known only at run time.
func (c *checker) callee(call *ast.CallExpr) types.Object {
	fun := ast.Unparen(call.Fun)
	switch f := fun.(type) { // with explicit type arguments
	case *ast.IndexExpr:
		fun = f.X
	case *ast.IndexListExpr:
		fun = f.X
	}
	switch f := fun.(type) {
	case *ast.Ident:
		return c.TypesInfo.Uses[f]
	case *ast.SelectorExpr:
		return c.TypesInfo.Uses[f.Sel]
	}
	return nil
}

// setsTime tells whether a call's last argument, where it is written out as a literal, sets LastTransitionTime.
func setsTime(args []ast.Expr) bool {
	literal, ok := args[len(args)-1].(*ast.CompositeLit)
	return !ok || slices.ContainsFunc(literal.Elts, func(e ast.Expr) bool {
		pair, ok := e.(*ast.KeyValueExpr)
		return ok && types.ExprString(pair.Key) == "LastTransitionTime"
	})
}

func fullName(object types.Object) string {
	if f, ok := object.(*types.Func); ok {
		return f.Origin().FullName()
	}
	if object.Pkg() == nil {
		return object.Name()
	}
	return object.Pkg().Path() + "." + object.Name()
}

// wholePackage returns "path.*" for a function or variable that a package exports, and nothing for types, constants,
// methods and fields.
func wholePackage(object types.Object) string {
	if object.Parent() != object.Pkg().Scope() {
		return ""
	}
	switch object.(type) {
	case *types.Func, *types.Var:
		return strings.TrimSuffix(object.Pkg().Path(), "/") + ".*"
	}
	return ""
}
