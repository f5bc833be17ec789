// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	etcdendpoints "go.etcd.io/etcd/client/v3/naming/endpoints"

	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// mark says which of the two packages a check is for.
type mark string

const (
	both   mark = "both"   // what a program that changes its imports may rely on
	ours   mark = "ours"   // what etcd's package may fail and this one must not
	theirs mark = "theirs" // what etcd's package does and this one, on purpose, does not
)

// check is one thing that a naming package does or does not do.
type check struct {
	name       string
	mark       mark
	difference string // for theirs, and ours where a program can tell: the heading in docs/migrate.md
	members    int    // of an etcd of its own, for checks that break it; 0: the shared one
	run        func(e *lab.Env)
}

// A check that the other package is expected to fail, by waiting, is given up early.
const (
	checkPatience  = 60 * time.Second
	checkCuriosity = 5 * time.Second
)

// TestCompat runs the same checks against etcd's naming package and against this one,
// prints a table of verdicts, and fails where this one fails what it should not.
func TestCompat(t *testing.T) {
	t.Parallel()
	checks := append(append(append(managerChecks(), watchChecks()...), resolverChecks()...), faultChecks()...)
	shared := lab.Start(t, etcdtest.Options{})
	verdicts := make([][2]string, len(checks)) // etcd's, ours; empty: passed
	t.Run("check", func(t *testing.T) {
		for i, c := range checks {
			for side, n := range []lab.Naming{lab.Etcd, lab.Rollcall} {
				t.Run(strings.ReplaceAll(c.name, " ", "_")+"/"+n.Name, func(t *testing.T) {
					t.Parallel()
					etcd, limit := shared, checkPatience
					if c.members > 0 {
						etcd = lab.Start(t, etcdtest.Options{Members: c.members})
					}
					if c.mark == ours && side == 0 || c.mark == theirs && side == 1 {
						limit = checkCuriosity
					}
					e := lab.NewEnv(t, n, etcd, fmt.Sprintf("compat/%d/%s", i, n.Name))
					verdicts[i][side] = e.Grade(limit, c.run)
				})
			}
		}
	})
	migrate, err := os.ReadFile("../../../docs/migrate.md")
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for i, c := range checks {
		theirVerdict, ourVerdict := verdicts[i][0], verdicts[i][1]
		switch c.mark {
		case both, ours:
			if ourVerdict != "" {
				t.Errorf("%s: %s", c.name, ourVerdict)
			}
			if c.mark == both && theirVerdict != "" {
				t.Errorf("%s: the check is wrong, etcd's own package fails it: %s", c.name, theirVerdict)
			}
		case theirs:
			if theirVerdict != "" {
				t.Errorf("%s: the difference is none, etcd's own package fails the check too: %s", c.name, theirVerdict)
			}
			if ourVerdict == "" {
				t.Errorf("%s: the difference is gone; docs/migrate.md lists %q", c.name, c.difference)
			}
			if c.difference == "" {
				t.Errorf("%s: a difference that docs/migrate.md does not list", c.name)
			}
		}
		named[c.difference] = true
		if c.difference != "" && !strings.Contains(string(migrate), "\n### "+c.difference+"\n") {
			t.Errorf("%s: docs/migrate.md has no heading %q", c.name, c.difference)
		}
	}
	for line := range strings.Lines(string(migrate)) {
		if heading, ok := strings.CutPrefix(strings.TrimSpace(line), "### "); ok && !named[heading] {
			t.Errorf("docs/migrate.md: no check shows the difference %q", heading)
		}
	}
	t.Log(table(checks, verdicts))
}

func table(checks []check, verdicts [][2]string) string {
	var b strings.Builder
	count := make(map[string]int)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\ncheck\tmark\tetcd\trollcall\twhy the failing one fails\n")
	for i, c := range checks {
		words := [2]string{"pass", "pass"}
		for side, failure := range verdicts[i] {
			if failure != "" {
				words[side] = "FAIL"
			}
		}
		count["etcd "+words[0]]++
		count["rollcall "+words[1]]++
		why := []rune(strings.Join(strings.Fields(verdicts[i][0]+verdicts[i][1]), " "))
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c.name, c.mark, words[0], words[1], string(why[:min(len(why), 110)]))
	}
	w.Flush()
	fmt.Fprintf(&b, "%d checks; etcd's package passes %d, Rollcall %d", len(checks), count["etcd pass"], count["rollcall pass"])
	return b.String()
}

// TestSameAPI holds both packages to the same exported types: what compiles against
// one compiles against the other.
func TestSameAPI(t *testing.T) {
	for _, pair := range [][2]reflect.Type{
		{reflect.TypeFor[etcdendpoints.Manager](), reflect.TypeFor[endpoints.Manager]()},
		{reflect.TypeFor[etcdendpoints.Endpoint](), reflect.TypeFor[endpoints.Endpoint]()},
		{reflect.TypeFor[etcdendpoints.Update](), reflect.TypeFor[endpoints.Update]()},
		{reflect.TypeFor[etcdendpoints.UpdateWithOpts](), reflect.TypeFor[endpoints.UpdateWithOpts]()},
		{reflect.TypeFor[etcdendpoints.WatchChannel](), reflect.TypeFor[endpoints.WatchChannel]()},
		{reflect.TypeFor[etcdendpoints.Key2EndpointMap](), reflect.TypeFor[endpoints.Key2EndpointMap]()},
		{reflect.TypeFor[etcdendpoints.Operation](), reflect.TypeFor[endpoints.Operation]()},
		{reflect.TypeOf(etcdendpoints.Add), reflect.TypeOf(endpoints.Add)},
		{reflect.TypeOf(etcdendpoints.NewManager), reflect.TypeOf(endpoints.NewManager)},
		{reflect.TypeOf(etcdendpoints.NewAddUpdateOpts), reflect.TypeOf(endpoints.NewAddUpdateOpts)},
		{reflect.TypeOf(etcdendpoints.NewDeleteUpdateOpts), reflect.TypeOf(endpoints.NewDeleteUpdateOpts)},
	} {
		if theirs, ours := shape(pair[0]), shape(pair[1]); theirs != ours {
			t.Errorf("etcd's package has\n%s\nthis one\n%s", theirs, ours)
		}
	}
	if uint8(etcdendpoints.Add) != uint8(endpoints.Add) || uint8(etcdendpoints.Delete) != uint8(endpoints.Delete) {
		t.Error("Add or Delete have other values than etcd's")
	}
}

// shape renders a type; both packages are called "endpoints", so names compare.
func shape(t reflect.Type) string {
	text := t.String() + " " + t.Kind().String()
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			text += fmt.Sprintf("\n\t%s %s embedded=%v", f.Name, f.Type, f.Anonymous)
		}
	case reflect.Interface:
		for i := range t.NumMethod() {
			text += fmt.Sprintf("\n\t%s %s", t.Method(i).Name, t.Method(i).Type)
		}
	case reflect.Chan, reflect.Map:
		text += " " + t.Elem().String()
	}
	return text
}
