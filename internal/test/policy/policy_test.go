// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rollcall-grpc/rollcall"

// layers lists the product's packages from the lowest up, what each may import of the
// module, and why. An import that is not listed is a new arrow: think before adding it.
var layers = []struct {
	pkg     string
	imports string // paths within the module, space-separated; "." is the root
	reason  string
}{
	{"internal/backoff", "", "it waits, and knows nothing"},
	{"internal/background", "", "it is about goroutines, whatever they do"},
	{"internal/jsonscan", "", "it reads JSON, whatever it means"},
	{"internal/throttle", "", "it decides on times alone"},
	{"internal/preallocate", "", "it gets memory, whatever is written to it"},
	{"internal/printable", "", "it is about characters, whatever they say"},
	{"internal/plural", "", "it is about words, whatever they say"},
	{"internal/spread", "", "it divides picks, whoever they are for"},
	{"internal/devetcd", "", "it is an etcd, and knows nothing of Rollcall"},
	{"internal/etcdkv", "internal/backoff internal/plural", "it talks to etcd, and knows nothing of instances"},
	{"internal/diskcache", "", "it keeps bytes on disk, whatever they mean"},
	{"internal/etcdconn", "internal/backoff internal/background internal/etcdkv", "it judges the connection, and knows no range of keys"},
	{"internal/reflector", "internal/backoff internal/background internal/etcdkv internal/etcdconn internal/throttle", "it copies ranges of keys, and knows nothing of instances"},
	{"internal/topic", "internal/backoff internal/background internal/etcdkv internal/throttle", "it tells subscribers, whatever of"},
	{".", "internal/backoff internal/background internal/diskcache internal/etcdkv internal/etcdconn internal/jsonscan internal/plural internal/preallocate internal/reflector internal/topic", "the root package is the domain: outputs hang below it"},
	{"internal/inventory", ". internal/etcdkv internal/printable", "what people see of a snapshot comes from one place, whatever shows it"},
	{"internal/top", ". internal/inventory internal/plural internal/printable", "a live view shows rows, and knows no command"},
	{"internal/cluster", "internal/etcdkv internal/plural internal/printable", "it asks etcd's members, and knows nothing of Rollcall"},
	{"internal/doctor", ". internal/backoff internal/cluster internal/inventory internal/plural internal/printable", "checks judge facts; what outputs know it is handed"},
	{"internal/timeline", ".", "it dates a history, whoever shows it"},
	{"internal/edit", ". internal/backoff internal/plural internal/printable", "commands and pages change keys in the same way"},
	{"internal/healthcheck", ". internal/backoff internal/printable", "it checks and registers, whichever command asks"},
	{"internal/release", "", "it builds and packs the command, and knows nothing of what it does"},
	{"internal/endpointattr", ".", "resolver and balancers share it, and nothing else"},
	{"resolver", ". internal/endpointattr internal/preallocate", "outputs never import each other"},
	{"endpoints", ".", "outputs never import each other"},
	{"serving", ".", "a server registers; it needs no output"},
	{"xds", ". internal/backoff", "it serves snapshots, and needs no other output"},
	{"metrics/internal/table", ".", "it reads figures, whoever exports them"},
	{"metrics/prometheus", ". metrics/internal/table", "it exports figures, and needs no other output"},
	{"metrics/otel", ". metrics/internal/table", "it exports figures, and needs no other output"},
	{"balancer/weighted", "internal/spread", "it reads gRPC's own attribute, and works with any resolver"},
	{"balancer/zone", ". internal/endpointattr internal/spread", "it reads localities from endpoints, and knows nothing of resolvers"},
	{"internal/console", ". internal/etcdkv internal/inventory internal/cluster internal/edit internal/plural internal/printable internal/timeline", "it shows snapshots as pages; what other outputs know it is handed"},
	{"internal/agent", ". internal/background internal/backoff internal/healthcheck internal/plural internal/printable", "it keeps a file's endpoints registered, and knows no command"},
	{"examples/server", ". serving", "a server needs no more"},
	{"examples/client", ". resolver", "a client needs no more"},
	{"examples/greeter", "", "a service knows nothing of who finds it"},
	{"examples/greeter/greeter-server", ". serving examples/greeter", "a server needs no more"},
	{"examples/greeter/greeter-client", ". resolver balancer/weighted examples/greeter", "a client needs no more"},
	{"examples/versionpicker", "resolver", "a balancer reads an endpoint's instance, and needs no more"},
	{"examples/readiness", ". serving metrics/prometheus examples/greeter", "a server with a probe and metrics needs no more"},
	{"examples/migrate/before", "examples/greeter", "it is what a program was before it knew Rollcall"},
	{"examples/migrate/oldclient", "examples/greeter", "the same"},
	{"examples/migrate/after", ". serving examples/greeter", "a server needs no more"},
	{"examples/polyglot/go", "", "a client that speaks xDS needs nothing of Rollcall"},
	{"cmd/rollcall", ". resolver endpoints serving xds balancer/weighted balancer/zone internal/devetcd internal/plural internal/printable internal/inventory internal/cluster metrics/prometheus internal/timeline internal/edit internal/console internal/top internal/healthcheck internal/agent internal/doctor", "the command puts everything together"},
}

// TestLayers checks that no import runs up: packages import those above them in the list,
// and only where the list allows it.
func TestLayers(t *testing.T) {
	listed := make(map[string]bool)
	allowed := make(map[string]string)
	for _, l := range layers {
		for _, imported := range strings.Fields(l.imports) {
			if !listed[imported] {
				t.Errorf("%s may import %s, which is not below it", l.pkg, imported)
			}
			allowed[l.pkg+" "+imported] = l.reason
		}
		listed[l.pkg] = true
	}
	for _, line := range goList(t, "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}`, "./...") {
		importer, imported, _ := strings.Cut(line, " ")
		from, to := within(importer), within(imported)
		switch {
		case to == "" || strings.HasPrefix(from, "internal/test/"):
		case !listed[from]:
			t.Errorf("%s is not in the list of layers", from)
		case allowed[from+" "+to] == "":
			t.Errorf("%s imports %s: %s", from, to, reasonOf(from))
		}
	}
}

// floors lists the files of the root package from the lowest up, with what each group is for:
// a declaration is used in its own file and in those above.
var floors = []struct{ files, reason string }{
	{"doc errors address client", "errors and rules that everything above may use"},
	{"metadata instance codec selector serviceconfig departure", "one key: what a value means"},
	{"snapshot fields history selfpreservation selection", "many keys at one revision"},
	{"store fallback informer configs", "how snapshots come about, for one key range"},
	{"directory requests past stats subscription", "what a program reads with"},
	{"edits origin reconcile", "one registration: pure decisions"},
	{"registrarstate outcome step writer keywatch renewal lease maintain", "many registrations under one lease"},
	{"registration registrar", "what a program registers with"},
}

// TestFloors checks that no use in the root package runs up.
func TestFloors(t *testing.T) {
	floor, reason := make(map[string]int), make(map[string]string)
	for _, group := range floors {
		for _, name := range strings.Fields(group.files) {
			floor[name+".go"], reason[name+".go"] = len(floor)+1, group.reason
		}
	}
	positions := token.NewFileSet()
	var files []*ast.File
	for _, path := range goList(t, "-f", `{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}`, ".") {
		file, err := parser.ParseFile(positions, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
		if floor[filepath.Base(path)] == 0 {
			t.Errorf("%s is on no floor", filepath.Base(path))
		}
	}
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object)}
	config := types.Config{Importer: exported(t, positions, ".")}
	pkg, err := config.Check(module, positions, files, info)
	if err != nil {
		t.Fatal(err)
	}
	for use, obj := range info.Uses {
		if obj.Pkg() != pkg {
			continue
		}
		from, to := filepath.Base(positions.Position(use.Pos()).Filename), filepath.Base(positions.Position(obj.Pos()).Filename)
		if floor[from] < floor[to] {
			t.Errorf("%s (%s) uses %s of %s, which is above it (%s)", from, reason[from], obj.Name(), to, reason[to])
		}
	}
}

// exported returns an importer of all that some packages depend on.
func exported(t *testing.T, positions *token.FileSet, packages string) types.Importer {
	t.Helper()
	exports := make(map[string]string)
	for _, line := range goList(t, "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", packages) {
		path, file, _ := strings.Cut(line, " ")
		exports[path] = file
	}
	return importer.ForCompiler(positions, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
}

// within returns a package's path within the module, "." for its root, "" for others.
func within(path string) string {
	if path == module {
		return "."
	}
	if rest, ok := strings.CutPrefix(path, module+"/"); ok {
		return rest
	}
	return ""
}

func reasonOf(pkg string) string {
	for _, l := range layers {
		if l.pkg == pkg {
			return l.reason
		}
	}
	return ""
}

// heavy lists what each package must never depend on, directly or through others, and why.
var heavy = []struct {
	pkgs   string
	never  string // path prefixes
	reason string
}{
	{". ./resolver ./endpoints ./serving ./balancer/zone", "go.etcd.io/etcd/server/ github.com/envoyproxy/ github.com/spf13/cobra github.com/prometheus/ go.opentelemetry.io/",
		"a user of the library builds no server, no command and no metrics"},
	{"./xds", "go.etcd.io/etcd/server/ github.com/envoyproxy/go-control-plane/pkg github.com/spf13/cobra github.com/prometheus/ go.opentelemetry.io/",
		"it is a library too, with state of its own"},
	{"./balancer/weighted", "go.etcd.io/ github.com/envoyproxy/ github.com/spf13/cobra github.com/prometheus/ go.opentelemetry.io/",
		"it works with any resolver"},
	{"./metrics/prometheus", "go.etcd.io/etcd/server/ github.com/envoyproxy/ go.opentelemetry.io/",
		"it exports to Prometheus, and nothing else"},
	{"./metrics/otel ./metrics/internal/table", "go.etcd.io/etcd/server/ github.com/envoyproxy/ github.com/prometheus/ go.opentelemetry.io/otel/sdk",
		"it uses the API; the program chooses the SDK"},
	{"./internal/throttle ./internal/backoff ./internal/jsonscan", "go.etcd.io/ google.golang.org/grpc",
		"it is a leaf"},
	{"./internal/spread", "go.etcd.io/", "it works with any resolver"},
	{"./internal/test/etcdtest ./internal/test/fakeetcd", "go.etcd.io/etcd/server/",
		"library packages test with it, and their users' go.sum must not grow by a server"},
}

func TestHeavyDependencies(t *testing.T) {
	for _, rule := range heavy {
		for _, pkg := range strings.Fields(rule.pkgs) {
			for _, dep := range goList(t, "-deps", pkg) {
				for _, never := range strings.Fields(rule.never) {
					if strings.HasPrefix(dep, never) {
						t.Errorf("%s depends on %s: %s", pkg, dep, rule.reason)
					}
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
	for _, pkg := range []string{".", "./resolver", "./endpoints", "./serving", "./balancer/weighted", "./balancer/zone", "./metrics/prometheus", "./metrics/otel"} {
		for _, path := range goList(t, "-f", `{{join .TestImports "\n"}}{{"\n"}}{{join .XTestImports "\n"}}`, pkg) {
			if strings.HasPrefix(path, "go.etcd.io/etcd/server/") || path == module+"/internal/devetcd" {
				t.Errorf("tests of %s import %s: they belong in internal/test/e2e", pkg, path)
			}
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

// etcd is watched in one place of the whole tree.
func TestOneWatch(t *testing.T) {
	var found []string
	sources(t, func(path, text string) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "internal/test/") {
			return
		}
		for range strings.Count(text, "lient.Watch(") + strings.Count(text, "Watcher.Watch(") {
			found = append(found, path)
		}
	})
	if len(found) != 1 || found[0] != "internal/etcdkv/watch.go" {
		t.Errorf("etcd is watched in %v, want once, in internal/etcdkv/watch.go", found)
	}
}

func TestSourceFiles(t *testing.T) {
	const header = "// SPDX-FileCopyrightText: The Rollcall Authors\n// SPDX-License-Identifier: Apache-2.0\n\n"
	comments := make(map[string][]string) // package comments by folder
	sources(t, func(path, text string) {
		if !strings.HasPrefix(text, header) {
			t.Errorf("%s does not begin with the two-line SPDX header", path)
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

const (
	maxFile     = 400 // lines
	maxFunction = 60  // lines
)

// A reader takes in a file, and a function, at once.
func TestSizes(t *testing.T) {
	sources(t, func(path, text string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		if lines := strings.Count(text, "\n"); lines > maxFile {
			t.Errorf("%s has %d lines, more than %d", path, lines, maxFile)
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok {
				if lines := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1; lines > maxFunction {
					t.Errorf("%s: %s has %d lines, more than %d", path, f.Name.Name, lines, maxFunction)
				}
			}
		}
	})
}

// Each promise in ARCHITECTURE.md has a test that bears its name.
func TestPromisesHaveTests(t *testing.T) {
	text, err := os.ReadFile(root + "/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	promises := regexp.MustCompile(`\*\*P([0-9]+) `).FindAllStringSubmatch(string(text), -1)
	if len(promises) != 9 {
		t.Errorf("ARCHITECTURE.md has %d promises, want P1 to P9", len(promises))
	}
	tests := make(map[string]bool)
	sources(t, func(path, text string) {
		if strings.HasSuffix(path, "_test.go") {
			for _, name := range regexp.MustCompile(`func TestP([0-9]+)[A-Z]`).FindAllStringSubmatch(text, -1) {
				tests[name[1]] = true
			}
		}
	})
	for _, p := range promises {
		if !tests[p[1]] {
			t.Errorf("no test is named after promise P%s", p[1])
		}
	}
}

// Documents name files that exist, by their path or, for short, by their name.
func TestDocumentsNameFiles(t *testing.T) {
	exists := make(map[string]bool)
	sources(t, func(path, _ string) { exists[path], exists[filepath.Base(path)] = true, true })
	documents, err := filepath.Glob(root + "/docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := filepath.Glob(root + "/docs/decisions/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(append(documents, decisions...), root+"/ARCHITECTURE.md", root+"/CONTRIBUTING.md") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`[a-z_0-9/]+\.go\b`).FindAllString(string(text), -1) {
			if _, err := os.Stat(root + "/" + name); err != nil && !exists[name] {
				t.Errorf("%s names %s, which does not exist", document, name)
			}
		}
	}
}

// ARCHITECTURE.md's table of where to look names functions that are in the files before them.
func TestWhereToLook(t *testing.T) {
	text, err := os.ReadFile(root + "/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## Where to look\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var file, content string
	functions := 0
	for _, match := range regexp.MustCompile("`([a-zA-Z_/]+(?:\\.go)?)`").FindAllStringSubmatch(table, -1) {
		name := match[1]
		if !strings.HasSuffix(name, ".go") {
			if content != "" && !strings.HasSuffix(name, "/") {
				functions++
				if !regexp.MustCompile(`func (\([^)]*\) )?` + name + `\(`).MatchString(content) {
					t.Errorf("no function %s in %s", name, file)
				}
			}
			continue
		}
		text, err := os.ReadFile(root + "/" + name)
		if err != nil { // for short: in the folder of the file before
			name = filepath.Join(filepath.Dir(file), name)
			if text, err = os.ReadFile(root + "/" + name); err != nil {
				t.Error(err)
			}
		}
		file, content = name, string(text)
	}
	if functions < 20 {
		t.Errorf("the table names %d functions", functions)
	}
}
