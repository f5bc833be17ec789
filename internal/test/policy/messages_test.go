// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
)

// docs/operate.md lists every message that the product logs, with its level, and no other.
func TestMessagesAreDocumented(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| (DEBUG|INFO|WARN|ERROR) \\| `([^`]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		line := row[1] + " " + row[2]
		if listed[line] {
			t.Errorf("docs/operate.md lists %q twice", line)
		}
		listed[line] = true
	}
	logged := make(map[string]string) // by level and message: where
	for _, pkg := range productPackages(t) {
		for line, at := range pkg.messages(t) {
			logged[line] = at
		}
	}
	for line, at := range logged {
		if !listed[line] {
			t.Errorf("docs/operate.md does not list %q, which %s logs", line, at)
		}
	}
	for line := range listed {
		if logged[line] == "" {
			t.Errorf("docs/operate.md lists %q, which nothing logs", line)
		}
	}
	if len(logged) < 40 {
		t.Errorf("found %d messages", len(logged))
	}
}

// sourcePackage is a package with its types.
type sourcePackage struct {
	files     []*ast.File
	positions *token.FileSet
	info      *types.Info
}

// productPackages reads the packages of the module but for tests and examples.
func productPackages(t *testing.T) (all []*sourcePackage) {
	t.Helper()
	positions := token.NewFileSet()
	imports := exported(t, positions, "./...")
	for _, line := range goList(t, "-f", `{{$d := .Dir}}{{.ImportPath}}{{range .GoFiles}} {{$d}}/{{.}}{{end}}`, "./...") {
		paths := strings.Fields(line)
		within := within(paths[0])
		if strings.HasPrefix(within, "internal/test/") || strings.HasPrefix(within, "examples/") {
			continue
		}
		p := &sourcePackage{positions: positions, info: &types.Info{Types: make(map[ast.Expr]types.TypeAndValue),
			Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object), Selections: make(map[*ast.SelectorExpr]*types.Selection)}}
		for _, path := range paths[1:] {
			file, err := parser.ParseFile(positions, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			p.files = append(p.files, file)
		}
		if _, err := (&types.Config{Importer: imports}).Check(paths[0], positions, p.files, p.info); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// messages returns where each message is logged, by its level and text.
func (p *sourcePackage) messages(t *testing.T) map[string]string {
	found := make(map[string]string)
	p.each(func(n ast.Node, _ *ast.FuncDecl) {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return
		}
		level, text := p.logged(call)
		if text == nil {
			return
		}
		at := p.positions.Position(call.Pos()).String()
		at = at[strings.LastIndexByte(at, '/')+1:]
		lines, err := p.trace(level, text, 0)
		if err != nil {
			t.Errorf("%s: %v: a message is constant text, or is passed on by variables, parameters and fields of this package", at, err)
		}
		for _, line := range lines {
			found[line] = at
		}
	})
	return found
}

// each calls f for all nodes, with the function that they are in.
func (p *sourcePackage) each(f func(n ast.Node, in *ast.FuncDecl)) {
	for _, file := range p.files {
		for _, decl := range file.Decls {
			in, _ := decl.(*ast.FuncDecl)
			ast.Inspect(decl, func(n ast.Node) bool { f(n, in); return true })
		}
	}
}

// logged returns what a call logs, nil where it does not.
func (p *sourcePackage) logged(call *ast.CallExpr) (level, text ast.Expr) {
	f, ok := p.callee(call).(*types.Func)
	if !ok || f.Pkg() == nil || f.Pkg().Path() != "log/slog" {
		return nil, nil
	}
	name, inContext := strings.CutSuffix(f.Name(), "Context")
	first := 0
	if inContext {
		first = 1
	}
	switch name {
	case "Debug", "Info", "Warn", "Error":
		return &ast.BasicLit{Kind: token.STRING, Value: fmt.Sprintf("%q", strings.ToUpper(name))}, call.Args[first]
	case "Log", "LogAttrs":
		return call.Args[1], call.Args[2]
	}
	return nil, nil
}

func (p *sourcePackage) callee(call *ast.CallExpr) types.Object {
	switch f := ast.Unparen(call.Fun).(type) {
	case *ast.Ident:
		return p.info.Uses[f]
	case *ast.SelectorExpr:
		return p.info.Uses[f.Sel]
	}
	return nil
}

// maxTrace is how many variables, parameters and fields may pass a message on.
const maxTrace = 8

// trace returns the messages that a level and a text may be. It substitutes variables, parameters
// and fields by what they are set to, in both at once, so that the level stays with its text.
func (p *sourcePackage) trace(level, text ast.Expr, depth int) (lines []string, err error) {
	levelIs, unknown := p.value(level)
	textIs, unknownText := p.value(text)
	if unknown == nil {
		unknown = unknownText
	}
	if unknown == nil {
		if textIs == "" {
			return nil, nil // of a variable that is not set yet
		}
		return []string{levelIs + " " + textIs}, nil
	}
	sources := p.sources(unknown)
	if len(sources) == 0 || depth == maxTrace {
		return nil, fmt.Errorf("cannot tell the value of %s", types.ExprString(unknown))
	}
	for _, source := range sources {
		found, err := p.trace(p.substitute(level, source), p.substitute(text, source), depth+1)
		if err != nil {
			return nil, err
		}
		lines = append(lines, found...)
	}
	return lines, nil
}

// value returns the value of a level or text, or the part of it that is not known.
func (p *sourcePackage) value(e ast.Expr) (text string, unknown ast.Expr) {
	if is := p.info.Types[e].Value; is != nil && is.Kind() == constant.String {
		return constant.StringVal(is), nil
	} else if is != nil {
		n, _ := constant.Int64Val(is)
		return slog.Level(n).String(), nil
	}
	switch e := ast.Unparen(e).(type) {
	case *ast.BasicLit:
		return strings.Trim(e.Value, `"`), nil
	case *ast.BinaryExpr:
		left, unknown := p.value(e.X)
		if unknown != nil {
			return "", unknown
		}
		right, unknown := p.value(e.Y)
		return left + right, unknown
	}
	return "", e
}

// object returns the variable or field that an expression names.
func (p *sourcePackage) object(e ast.Expr) types.Object {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		if defined := p.info.Defs[e]; defined != nil {
			return defined
		}
		return p.info.Uses[e]
	case *ast.SelectorExpr:
		return p.info.Uses[e.Sel]
	}
	return nil
}

// source is one place where variables or fields get their values.
type source map[types.Object]ast.Expr

// substitute returns an expression with what a source has for the variables in it.
func (p *sourcePackage) substitute(e ast.Expr, s source) ast.Expr {
	if sum, ok := ast.Unparen(e).(*ast.BinaryExpr); ok {
		return &ast.BinaryExpr{X: p.substitute(sum.X, s), Op: sum.Op, Y: p.substitute(sum.Y, s)}
	}
	if object := p.object(e); object != nil && s[object] != nil {
		return s[object]
	}
	return e
}

// sources returns all places where what an expression names gets its value.
func (p *sourcePackage) sources(e ast.Expr) (all []source) {
	object := p.object(e)
	if object == nil {
		return nil
	}
	add := func(s source) {
		if s[object] != nil {
			all = append(all, s)
		}
	}
	p.each(func(n ast.Node, in *ast.FuncDecl) {
		switch n := n.(type) {
		case *ast.CallExpr:
			add(p.arguments(n))
		case *ast.AssignStmt:
			if returned := p.returned(n); returned != nil {
				for _, s := range returned {
					add(s)
				}
			} else if n.Tok == token.ASSIGN || n.Tok == token.DEFINE {
				add(p.pairs(n.Lhs, n.Rhs))
			}
		case *ast.CompositeLit:
			add(p.elements(n))
		}
	})
	return all
}

func (p *sourcePackage) pairs(to, from []ast.Expr) source {
	s := make(source)
	if len(to) == len(from) {
		for i := range to {
			s[p.object(to[i])] = from[i]
		}
	}
	delete(s, nil)
	return s
}

// arguments returns what a call of this package gives the parameters.
func (p *sourcePackage) arguments(call *ast.CallExpr) source {
	f, ok := p.callee(call).(*types.Func)
	s := make(source)
	if ok {
		params := f.Signature().Params()
		for i := range min(params.Len(), len(call.Args)) {
			s[params.At(i)] = call.Args[i]
		}
	}
	return s
}

// returned returns what the returns of a function give the variables that its results are assigned to.
func (p *sourcePackage) returned(to *ast.AssignStmt) (all []source) {
	if len(to.Rhs) != 1 || len(to.Lhs) < 2 {
		return nil
	}
	call, ok := to.Rhs[0].(*ast.CallExpr)
	if !ok {
		return nil
	}
	callee := p.callee(call)
	p.each(func(n ast.Node, in *ast.FuncDecl) {
		if ret, ok := n.(*ast.ReturnStmt); ok && in != nil && callee != nil && p.info.Defs[in.Name] == callee {
			all = append(all, p.pairs(to.Lhs, ret.Results))
		}
	})
	return all
}

// elements returns what a composite literal gives the fields.
func (p *sourcePackage) elements(lit *ast.CompositeLit) source {
	s := make(source)
	is, ok := p.info.Types[lit].Type.Underlying().(*types.Struct)
	if !ok {
		return s
	}
	for i, e := range lit.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			s[p.object(pair.Key)] = pair.Value
		} else {
			s[is.Field(i)] = e
		}
	}
	return s
}
