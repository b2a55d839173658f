// Lint checks the rules of this repository that the compiler can't. Each finding names its rule:
//
//	walltime   controllers/ and sim/ read no clock but the one that they are given, and never sleep
//	goroutine  controllers/ and sim/ start no goroutine: one event loop drives everything
//	random     controllers/ and sim/ draw from no source but the seeded one that they are given
//	maporder   in controllers/ and sim/ nothing depends on the order in which a map is ranged over
//	imports    controllers/ knows nothing of sim/; sim/check and sim/report judge a history and know no cluster; nothing
//	           imports cmd/; no package is called utils, common or helpers
//
// The first four are what makes equal seeds lead to equal histories. They hold for everything but tests and the packages
// that deal with the real world, see realTime. They are checked by name, so they find slips, not intent: a function of
// another module that reads the clock by itself is found only if it is listed here. Add it when it has bitten.
//
// Where a rule has to be broken, say why, on the same line or on the line before:
//
//	//layersim:allow walltime wallSeconds in the report is real time
//
// An exception without a reason, or one that excepts nothing, is a finding too.
//
// Usage:
//
//	go run ./hack/lint -test=false ./...
package main

import (
	"cmp"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/analysis/singlechecker"
	"golang.org/x/tools/go/ast/inspector"
)

const module = "github.com/layersim/layersim/"

// The folders in which the first four rules hold, and those among them that drive components in the real world.
var (
	deterministic = []string{"controllers", "sim"}
	realTime      = []string{"controllers/manager", "sim/cluster/envtest", "sim/cluster/kind", "sim/cluster/live", "sim/cluster/proxy", "sim/cluster/release", "sim/store/storetest"}
)

// layers says what the packages below one folder may not import.
var layers = []struct{ folder, imported, reason string }{
	{"controllers", "sim", "controllers/ is production code and knows nothing of the simulation"},
	{"sim/check", "sim/cluster", "a saved history is judged without a cluster"},
	{"sim/report", "sim/cluster", "a saved history is presented without a cluster"},
	{"", "cmd", "nothing imports cmd/"},
}

var analyzer = &analysis.Analyzer{
	Name:     "layersim",
	Doc:      "check the rules of this repository: walltime, goroutine, random, maporder, imports",
	Requires: []*analysis.Analyzer{inspect.Analyzer},
	Run:      run,
}

func main() { singlechecker.Main(analyzer) }

// checker collects what is found in one package.
type checker struct {
	*analysis.Pass
	tree     inspector.Cursor
	findings []finding
}

type finding struct {
	pos           token.Pos
	rule, message string
}

func (c *checker) report(pos token.Pos, rule, message string) {
	c.findings = append(c.findings, finding{pos, rule, message})
}

func run(pass *analysis.Pass) (any, error) {
	c := &checker{Pass: pass, tree: pass.ResultOf[inspect.Analyzer].(*inspector.Inspector).Root()}
	c.imports()
	if under(pass.Pkg.Path(), deterministic) && !under(pass.Pkg.Path(), realTime) {
		c.uses()
		c.goroutines()
		c.mapOrder()
	}

	allowed := c.exceptions()
	for _, f := range c.findings {
		at := pass.Fset.Position(f.pos)
		if strings.HasSuffix(at.Filename, "_test.go") {
			continue
		}
		if e := allowed[where{at.Filename, at.Line, f.rule}]; e != nil {
			e.used = true
			continue
		}
		pass.Reportf(f.pos, "%s: %s", f.rule, f.message)
	}
	for _, e := range allowed {
		if !e.used {
			pass.Reportf(e.pos, "allow: nothing on this line or the next breaks the rule %s", cmp.Or(e.rule, "(none named)"))
			e.used = true // it is listed under two lines
		}
	}
	return nil, nil
}

// where is a line that is excepted from a rule.
type where struct {
	file string
	line int
	rule string
}

type exception struct {
	pos  token.Pos
	rule string
	used bool
}

// exceptions returns the exceptions that the package makes, each under its own line and the next.
func (c *checker) exceptions() map[where]*exception {
	found := make(map[where]*exception)
	for _, file := range c.Files {
		for _, group := range file.Comments {
			for _, comment := range group.List {
				text, ok := strings.CutPrefix(comment.Text, "//layersim:allow")
				if !ok {
					continue
				}
				rule, reason, _ := strings.Cut(strings.TrimSpace(text), " ")
				if strings.TrimSpace(reason) == "" {
					c.Reportf(comment.Pos(), "allow: say the rule and the reason: //layersim:allow RULE REASON")
					continue
				}
				at := c.Fset.Position(comment.Pos())
				e := &exception{pos: comment.Pos(), rule: rule}
				found[where{at.Filename, at.Line, rule}] = e
				found[where{at.Filename, at.Line + 1, rule}] = e
			}
		}
	}
	return found
}

// imports checks who imports whom, and what packages are called.
func (c *checker) imports() {
	if name := c.Pkg.Name(); slices.Contains([]string{"utils", "util", "common", "helpers", "helper"}, name) {
		c.report(c.Files[0].Name.Pos(), "imports", "a package called "+name+" says nothing; name it after what is in it")
	}
	for spec := range c.tree.Preorder((*ast.ImportSpec)(nil)) {
		imported := strings.Trim(spec.Node().(*ast.ImportSpec).Path.Value, "`\"")
		for _, layer := range layers {
			if in(c.Pkg.Path(), layer.folder) && in(imported, layer.imported) {
				c.report(spec.Node().Pos(), "imports", layer.reason)
			}
		}
	}
}

// goroutines checks the statements that start goroutines or wait for them.
func (c *checker) goroutines() {
	for at := range c.tree.Preorder((*ast.GoStmt)(nil), (*ast.SelectStmt)(nil)) {
		switch stmt := at.Node().(type) {
		case *ast.GoStmt:
			c.report(stmt.Pos(), "goroutine", "the go statement; declare a component, or requeue")
		case *ast.SelectStmt:
			if len(stmt.Body.List) > 1 {
				c.report(stmt.Pos(), "goroutine", "select chooses at random among the ready cases")
			}
		}
	}
}

func under(importPath string, folders []string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool { return in(importPath, folder) })
}

// in tells whether an import path lies in a folder of this module, however deep.
func in(importPath, folder string) bool {
	rest, ok := strings.CutPrefix(importPath+"/", module)
	return ok && (folder == "" || strings.HasPrefix(rest, path.Clean(folder)+"/"))
}
