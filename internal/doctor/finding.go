// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// Severity is how much a finding hurts.
type Severity string

// The severities, from the least to the worst.
const (
	Note    Severity = "note"    // worth knowing; nothing fails of it
	Warning Severity = "warning" // it works, and will hurt
	Error   Severity = "error"   // calls, registrations or data suffer now
)

// Worse compares severities: it is positive if s is worse than o.
func (s Severity) Worse(o Severity) int {
	order := []Severity{Note, Warning, Error}
	return slices.Index(order, s) - slices.Index(order, o)
}

// Finding is something that is not as it should be. Its texts hold what others have written, and are to
// be escaped before a terminal shows them.
type Finding struct {
	ID       string     `json:"id"` // of the check: documented in docs/doctor.md, and stable
	Severity Severity   `json:"severity"`
	Service  string     `json:"service,omitempty"`
	Member   string     `json:"member,omitempty"` // of etcd, by name, or its endpoint
	Keys     []Key      `json:"keys,omitempty"`   // in etcd, all that it is about
	What     string     `json:"what"`
	Why      string     `json:"why"`                // it matters
	Fix      string     `json:"fix"`                // in words
	Commands [][]string `json:"commands,omitempty"` // that mend it, each as its arguments

	rows []*inventory.Instance // of Keys, where the finding is about endpoints
}

// Key is a key in etcd.
type Key struct {
	Key       string `json:"key"`
	KeyBase64 string `json:"keyBase64,omitempty"` // where the key is not UTF-8
}

// check is one kind of fault. find returns findings without an ID; what they leave empty of Severity, Why and
// Fix is the check's.
type check struct {
	id       string
	severity Severity
	why, fix string
	find     func(*Facts) []Finding
}

// Diagnose returns what all checks find, the worst first.
func Diagnose(facts *Facts) []Finding {
	all := []Finding{}
	for _, c := range slices.Concat(etcdChecks, rightsChecks, keyChecks, serverChecks, clientChecks) {
		for _, f := range c.find(facts) {
			f.ID, f.Severity = c.id, cmp.Or(f.Severity, c.severity)
			f.Why, f.Fix = cmp.Or(f.Why, c.why), cmp.Or(f.Fix, c.fix)
			all = append(all, f)
		}
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return b.Severity.Worse(a.Severity) })
	return all
}

// maxNamed is how many keys or addresses a sentence names.
const maxNamed = 3

// named lists names, the first of them and how many more there are.
func named(names []string) string {
	if more := len(names) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), more)
	}
	return strings.Join(names, ", ")
}

// ofService is a finding about some keys of a service. what is formatted with their number, such as
// "3 endpoints", and the keys follow it, each with what about tells of it.
func ofService(service string, rows []*inventory.Instance, what string, about func(*inventory.Instance) string) Finding {
	f := Finding{Service: service, rows: rows}
	names := make([]string, 0, len(rows))
	for _, row := range rows {
		f.Keys = append(f.Keys, Key{row.Key, row.KeyBase64})
		name := fmt.Sprintf("%q", row.Key)
		if more := about(row); more != "" {
			name += " (" + more + ")"
		}
		names = append(names, name)
	}
	f.What = fmt.Sprintf(what, plural.Count(len(rows), "endpoint", "endpoints")) + ": " + named(names)
	return f
}

// call returns a command line: a command with its flags, such as "rollcall rm --yes", and names that others chose.
func call(command string, names ...string) []string {
	words := strings.Fields(command)
	if slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, "-") }) {
		words = append(words, "--")
	}
	return append(words, names...)
}

// calls returns the one command line of a finding.
func calls(command string, names ...string) [][]string { return [][]string{call(command, names...)} }

// forEach returns a command line for each endpoint.
func forEach(rows []*inventory.Instance, command string) (lines [][]string) {
	for _, row := range rows {
		lines = append(lines, call(command, row.Service, cmp.Or(row.ID, row.Addr))) // an empty id cannot be named
	}
	return lines
}
