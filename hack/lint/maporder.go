package main

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/tools/go/ast/inspector"
)

// mapOrder checks the loops over maps, and the iterators of package maps.
//
// A loop is left alone when it is plain that its effect is the same in any order: it fills a map or a set, counts, adds
// up integers, sets constants, or appends to a slice that the same function sorts afterwards. All else is a finding,
// above all calls that take a context (they act on the world) and returns of what an element led to.
func (c *checker) mapOrder() {
	for at := range c.tree.Preorder((*ast.RangeStmt)(nil), (*ast.CallExpr)(nil)) {
		switch node := at.Node().(type) {
		case *ast.RangeStmt:
			if !c.isMap(node.X) && !c.isMapIterator(node.X) || blank(node.Key) && blank(node.Value) {
				continue
			}
			l := &loop{checker: c, RangeStmt: node, function: body(at)}
			if culprit := l.ordered(node.Body.List...); culprit != nil {
				line := c.Fset.Position(culprit.Pos()).Line
				c.report(node.Pos(), "maporder", "line "+strconv.Itoa(line)+
					" makes the effect depend on the order; range over slices.Sorted(maps.Keys(m))")
			}
		case *ast.CallExpr:
			if c.isMapIterator(node) && !c.consumed(at) {
				c.report(node.Pos(), "maporder", "the order of this iterator is random; use slices.Sorted or SortedFunc on it")
			}
		}
	}
}

// body returns the body of the outermost function around a node.
func body(at inspector.Cursor) (body ast.Node) {
	for f := range at.Enclosing((*ast.FuncDecl)(nil)) {
		body = f.Node()
	}
	return body
}

func (c *checker) isMap(e ast.Expr) bool {
	t := c.TypesInfo.TypeOf(e)
	if t == nil {
		return false
	}
	_, ok := t.Underlying().(*types.Map)
	return ok
}

// isMapIterator tells whether an expression is a call of maps.Keys, maps.Values or maps.All.
func (c *checker) isMapIterator(e ast.Expr) bool {
	return c.calls(e, "maps.Keys", "maps.Values", "maps.All")
}

func (c *checker) calls(e ast.Node, names ...string) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	called := c.callee(call)
	return called != nil && slices.Contains(names, fullName(called))
}

// consumed tells whether what takes an iterator brings its elements into an order, or has none itself.
func (c *checker) consumed(at inspector.Cursor) bool {
	parent := at.Parent()
	if loop, ok := parent.Node().(*ast.RangeStmt); ok {
		return loop.X == at.Node() // judged as a loop
	}
	if c.calls(parent.Node(), "slices.Sorted", "slices.SortedFunc", "slices.SortedStableFunc", "maps.Collect", "maps.Insert",
		"slices.Max", "slices.Min", "k8s.io/apimachinery/pkg/util/sets.KeySet") {
		return true
	}
	if !c.calls(parent.Node(), "slices.Collect", "slices.AppendSeq") {
		return false
	}
	// keys := slices.Collect(maps.Keys(m)); slices.Sort(keys)
	assign, ok := parent.Parent().Node().(*ast.AssignStmt)
	return ok && len(assign.Lhs) == 1 && c.sorts(body(at), assign.End(), assign.Lhs[0])
}

// sorts tells whether a function sorts a slice somewhere after a position.
func (c *checker) sorts(function ast.Node, after token.Pos, slice ast.Expr) (found bool) {
	if function == nil {
		return false
	}
	want := types.ExprString(slice)
	ast.Inspect(function, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if ok && call.Pos() > after && len(call.Args) > 0 {
			called := c.callee(call)
			if called != nil && isSort(called) {
				found = found || strings.Contains(types.ExprString(call.Args[0]), want)
			}
		}
		return true
	})
	return found
}

func isSort(called types.Object) bool {
	name := fullName(called)
	return strings.HasPrefix(name, "sort.") || strings.HasPrefix(name, "slices.Sort")
}

// loop is a loop over a map, and the function around it.
type loop struct {
	*checker
	*ast.RangeStmt
	function ast.Node
}

// ordered returns the first thing in the statements whose effect depends on the order of the iterations, or nil.
func (l *loop) ordered(stmts ...ast.Stmt) ast.Node {
	for _, stmt := range stmts {
		var culprit ast.Node
		switch s := stmt.(type) {
		case nil, *ast.EmptyStmt, *ast.IncDecStmt, *ast.BranchStmt, *ast.DeclStmt:
		case *ast.BlockStmt:
			culprit = l.ordered(s.List...)
		case *ast.LabeledStmt:
			culprit = l.ordered(s.Stmt)
		case *ast.IfStmt:
			culprit = l.ordered(s.Init, s.Body, s.Else)
		case *ast.ForStmt:
			culprit = l.ordered(s.Init, s.Post, s.Body)
		case *ast.RangeStmt:
			culprit = l.ordered(s.Body)
		case *ast.SwitchStmt:
			culprit = l.ordered(s.Init, s.Body)
		case *ast.TypeSwitchStmt:
			culprit = l.ordered(s.Init, s.Body)
		case *ast.CaseClause:
			culprit = l.ordered(s.Body...)
		case *ast.AssignStmt:
			for i, left := range s.Lhs {
				if !l.assignable(s, left, s.Rhs[min(i, len(s.Rhs)-1)]) {
					culprit = s
				}
			}
		case *ast.ExprStmt:
			if !l.callable(s.X) {
				culprit = s
			}
		case *ast.ReturnStmt:
			if slices.ContainsFunc(s.Results, l.fromElement) {
				culprit = s
			}
		default: // go, defer, send, select
			culprit = s
		}
		if culprit == nil && stmt != nil {
			culprit = l.acts(stmt)
		}
		if culprit != nil {
			return culprit
		}
	}
	return nil
}

// assignable tells whether an assignment leads to the same in any order.
func (l *loop) assignable(s *ast.AssignStmt, left, right ast.Expr) bool {
	if s.Tok == token.DEFINE || blank(left) || l.inside(left) {
		return true
	}
	if s.Tok != token.ASSIGN { // x += e
		basic, ok := l.TypesInfo.TypeOf(left).Underlying().(*types.Basic)
		return ok && basic.Info()&types.IsInteger != 0
	}
	appends := l.calls(right, "append")
	if index, ok := left.(*ast.IndexExpr); ok && (l.isMap(index.X) || l.fromElement(index.Index)) {
		return !appends || l.Key != nil && types.ExprString(index.Index) == types.ExprString(l.Key)
	}
	if appends {
		return l.sorts(l.function, l.RangeStmt.End(), left)
	}
	value := l.TypesInfo.Types[right]
	return value.Value != nil || value.IsNil() || l.calls(right, "min", "max")
}

// callable tells whether a call for its effect has the same effect in any order: it acts on a map, a set or something
// that belongs to the iteration.
func (l *loop) callable(e ast.Expr) bool {
	call, ok := ast.Unparen(e).(*ast.CallExpr)
	if !ok {
		return false
	}
	if l.calls(call, "delete", "clear", "maps.Copy") {
		return true
	}
	if method, ok := call.Fun.(*ast.SelectorExpr); ok && (l.isMap(method.X) || l.inside(method.X)) {
		return true
	}
	called := l.callee(call)
	return called != nil && isSort(called) && l.inside(call.Args[0])
}

// acts returns a call in the statement that takes a context: it may act on the world.
func (l *loop) acts(stmt ast.Stmt) (culprit ast.Node) {
	ast.Inspect(stmt, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && culprit == nil {
			signature, ok := l.TypesInfo.TypeOf(call.Fun).(*types.Signature)
			if ok && signature.Params().Len() > 0 && signature.Params().At(0).Type().String() == "context.Context" {
				culprit = call
			}
		}
		return culprit == nil
	})
	return culprit
}

// inside tells whether an expression stands for something that was declared in this loop: x, x.f, x[i].f, *x.
func (l *loop) inside(e ast.Expr) bool {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		object := l.TypesInfo.ObjectOf(e)
		return object != nil && l.RangeStmt.Pos() <= object.Pos() && object.Pos() < l.RangeStmt.End()
	case *ast.SelectorExpr:
		return l.inside(e.X)
	case *ast.IndexExpr:
		return l.inside(e.X)
	case *ast.StarExpr:
		return l.inside(e.X)
	case *ast.UnaryExpr:
		return l.inside(e.X)
	}
	return false
}

// fromElement tells whether an expression mentions anything that was declared in this loop.
func (l *loop) fromElement(e ast.Expr) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		if ident, ok := n.(*ast.Ident); ok && l.inside(ident) {
			found = true
		}
		return !found
	})
	return found
}

func blank(e ast.Expr) bool {
	ident, ok := e.(*ast.Ident)
	return e == nil || ok && ident.Name == "_"
}
