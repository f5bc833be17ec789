// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rollcall-grpc/rollcall"

// imports lists what each package must never import, directly or through others, and why.
var imports = []struct {
	pkg    string
	never  []string // path prefixes
	reason string
}{
	{".", []string{module + "/", "go.etcd.io/etcd/server/", "github.com/envoyproxy/", "github.com/spf13/cobra"},
		"the root package is the domain: everything else hangs below it"},
	{"./resolver", []string{module + "/endpoints", module + "/serving", module + "/internal", "go.etcd.io/etcd/server/", "github.com/envoyproxy/", "github.com/spf13/cobra"},
		"outputs never import each other, and a user of the library builds no server and no command"},
	{"./endpoints", []string{module + "/resolver", module + "/serving", module + "/internal", "go.etcd.io/etcd/server/", "github.com/envoyproxy/", "github.com/spf13/cobra"},
		"outputs never import each other, and a user of the library builds no server and no command"},
	{"./balancer/weighted", []string{module + "/endpoints", module + "/resolver", module + "/serving", "go.etcd.io/", "github.com/envoyproxy/", "github.com/spf13/cobra"},
		"it reads gRPC's own attribute, and works with any resolver"},
	{"./balancer/zone", []string{module + "/endpoints", module + "/serving", "go.etcd.io/etcd/server/", "github.com/envoyproxy/", "github.com/spf13/cobra"},
		"it asks the resolver for attributes, and knows nothing else of etcd"},
	{"./internal/spread", []string{module + "/resolver", module + "/endpoints", module + "/serving", "go.etcd.io/"},
		"it divides picks, whoever they are for"},
	{"./serving", []string{module + "/resolver", module + "/endpoints", module + "/internal", "go.etcd.io/etcd/server/", "github.com/envoyproxy/", "github.com/spf13/cobra"},
		"a server registers; it needs no output"},
	{"./internal/devetcd", []string{module + "/resolver", module + "/endpoints", module + "/serving", module + "/cmd"},
		"it is an etcd and knows nothing of Rollcall"},
	{"./internal/test/etcdtest", []string{"go.etcd.io/etcd/server/"},
		"library packages test with it, and their users' go.sum must not grow by a server"},
	{"./internal/test/fakeetcd", []string{module + "/resolver", module + "/endpoints", module + "/serving", "go.etcd.io/etcd/server/"},
		"it stands for etcd and knows nothing of Rollcall"},
}

func TestImports(t *testing.T) {
	for _, rule := range imports {
		for _, dep := range goList(t, "-deps", rule.pkg) {
			for _, never := range rule.never {
				if strings.HasPrefix(dep, never) {
					t.Errorf("%s imports %s: %s", rule.pkg, dep, rule.reason)
				}
			}
		}
	}
}

// The root package itself stays clear of gRPC's balancing and of HTTP, which etcd's
// client may bring along.
func TestRootImportsDirectly(t *testing.T) {
	for _, path := range goList(t, "-f", `{{join .Imports "\n"}}`, ".") {
		for _, never := range []string{"google.golang.org/grpc/resolver", "google.golang.org/grpc/balancer", "net/http"} {
			if strings.HasPrefix(path, never) {
				t.Errorf("the root package imports %s: outputs do", path)
			}
		}
	}
}

// Tests of library packages import no embedded etcd: it would enter the go.sum of
// whoever depends on them.
func TestLibraryTestsImportNoServer(t *testing.T) {
	for _, pkg := range []string{".", "./resolver", "./endpoints", "./serving", "./balancer/weighted", "./balancer/zone"} {
		for _, path := range goList(t, "-f", `{{join .TestImports "\n"}}{{"\n"}}{{join .XTestImports "\n"}}`, pkg) {
			if strings.HasPrefix(path, "go.etcd.io/etcd/server/") || path == module+"/internal/devetcd" {
				t.Errorf("tests of %s import %s: they belong in internal/test/e2e", pkg, path)
			}
		}
	}
}

func TestNobodyImportsCommands(t *testing.T) {
	for _, line := range goList(t, "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}`, "./...") {
		if importer, path, _ := strings.Cut(line, " "); strings.HasPrefix(path, module+"/cmd/") {
			t.Errorf("%s imports %s", importer, path)
		}
	}
}

// goList runs go list in the module's root and returns its lines.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool { return line == "" })
}

const root = "../../.."

// sources calls f for every Go file of the module.
func sources(t *testing.T, f func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); entry.IsDir() && (name == "tools" || name == "bench" || name == "bin" || strings.HasPrefix(name, ".") && len(name) > 2) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		f(filepath.ToSlash(strings.TrimPrefix(path, root+"/")), string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// There is one decoder and one watch in the whole tree.
func TestOneWatch(t *testing.T) {
	var found []string
	sources(t, func(path, text string) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "internal/") {
			return
		}
		for range strings.Count(text, "lient.Watch(") + strings.Count(text, "Watcher.Watch(") {
			found = append(found, path)
		}
	})
	if len(found) != 1 || found[0] != "watch.go" {
		t.Errorf("etcd is watched in %v, want once, in watch.go", found)
	}
}

func TestSourceFiles(t *testing.T) {
	const header = "// SPDX-FileCopyrightText: The Rollcall Authors\n// SPDX-License-Identifier: Apache-2.0\n\n"
	comments := make(map[string][]string) // package comments by folder
	sources(t, func(path, text string) {
		if !strings.HasPrefix(text, header) {
			t.Errorf("%s does not begin with the two-line SPDX header", path)
		}
		if lines := strings.Count(text, "\n"); lines > 500 && !strings.HasSuffix(path, "_test.go") {
			t.Errorf("%s has %d lines: a file stops at 500", path, lines)
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		folder := filepath.Dir(path)
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		if comments[folder] = append([]string{}, comments[folder]...); file.Doc != nil {
			comments[folder] = append(comments[folder], path)
		}
	})
	for folder, files := range comments {
		if len(files) != 1 {
			t.Errorf("package in %s has %d package comments %v, want 1", folder, len(files), files)
		}
	}
}
