// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestDocumentsAreInTheAPI: docs/api.md has a row for each kind of JSON document that the source writes, with its fields,
// and for no other.
func TestDocumentsAreInTheAPI(t *testing.T) {
	source := parseSource(t)
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## JSON of the command")
	rows := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z]\\w+)` \\| .*$").FindAllStringSubmatch(section, -1) {
		rows[row[1]] = row[0]
	}
	kinds := make(map[string]bool)
	for name, document := range source.structs {
		if !source.hasKind(document) || name == "rawClientList" { // which is only read
			continue
		}
		written := source.kindsOf(name)
		if len(written) == 0 {
			t.Errorf("no kind of the document %s is found", name)
		}
		for _, kind := range written {
			kinds[kind] = true
			for _, field := range source.fields(document) {
				if !strings.Contains(rows[kind], "`"+field+"`") && !strings.HasSuffix(field, "Base64") {
					t.Errorf("docs/api.md, %s: no field %q; the row is %q", kind, field, rows[kind])
				}
			}
		}
	}
	for kind := range rows {
		if !kinds[kind] {
			t.Errorf("docs/api.md has the kind %s, which nothing writes", kind)
		}
	}
	if len(kinds) < 20 {
		t.Errorf("only these kinds are found: %v", kinds)
	}
}

// sourceTypes are the declarations of this package.
type sourceTypes struct {
	structs  map[string]*ast.StructType
	literals []*ast.CompositeLit
	texts    map[string]string // constants
}

func parseSource(t *testing.T) sourceTypes {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	s := sourceTypes{make(map[string]*ast.StructType), nil, make(map[string]string)}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.TypeSpec:
				if document, ok := node.Type.(*ast.StructType); ok {
					s.structs[node.Name.Name] = document
				}
			case *ast.CompositeLit:
				s.literals = append(s.literals, node)
			case *ast.ValueSpec:
				if len(node.Values) == 1 {
					s.texts[node.Names[0].Name] = s.text(node.Values[0])
				}
			}
			return true
		})
	}
	return s
}

// text returns the text of a literal or a constant.
func (s sourceTypes) text(value ast.Expr) string {
	switch value := value.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(value.Value)
		return text
	case *ast.Ident:
		return s.texts[value.Name]
	}
	return ""
}

// fields returns the names of a document's fields but for version and kind, with those of what is embedded from here.
func (s sourceTypes) fields(document *ast.StructType) (names []string) {
	for _, field := range document.Fields.List {
		if field.Tag == nil {
			if embedded, ok := field.Type.(*ast.Ident); ok && len(field.Names) == 0 {
				names = append(names, s.fields(s.structs[embedded.Name])...)
			}
			continue
		}
		name, _, _ := strings.Cut(reflect.StructTag(s.text(field.Tag)).Get("json"), ",")
		if name != "" && name != "-" && name != "apiVersion" && name != "kind" {
			names = append(names, name)
		}
	}
	return names
}

func (s sourceTypes) hasKind(document *ast.StructType) bool {
	for _, field := range document.Fields.List {
		if field.Tag != nil && strings.Contains(field.Tag.Value, `json:"kind"`) {
			return true
		}
	}
	return false
}

// kindsOf returns the kinds that documents of a type are written with: the field Kind, or the second one.
func (s sourceTypes) kindsOf(document string) (kinds []string) {
	for _, literal := range s.literals {
		if of, ok := literal.Type.(*ast.Ident); !ok || of.Name != document {
			continue
		}
		for i, element := range literal.Elts {
			named, ok := element.(*ast.KeyValueExpr)
			switch {
			case ok && named.Key.(*ast.Ident).Name == "Kind":
				kinds = append(kinds, s.text(named.Value))
			case !ok && i == 1:
				kinds = append(kinds, s.text(element))
			}
		}
	}
	return kinds
}
