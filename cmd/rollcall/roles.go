// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

var roleKinds = []string{"registrar", "resolver", "viewer", "operator", "bridge", "console"}

// wholeStore reports whether a kind of role without services is for the whole store.
func wholeStore(kind string) bool { return kind == "viewer" || kind == "bridge" || kind == "console" }

// writes reports whether a kind of role writes the services that it is for.
func writes(kind string) bool { return kind == "registrar" || kind == "operator" || kind == "console" }

// permission is an etcd permission on the keys from Key up to, not including, RangeEnd; on Key
// alone if RangeEnd is empty.
type permission struct {
	Access   string `json:"access"` // "read" or "readwrite"
	Key      string `json:"key"`
	RangeEnd string `json:"rangeEnd,omitempty"`
}

type role struct {
	APIVersion  string       `json:"apiVersion"`
	Kind        string       `json:"kind"`
	Name        string       `json:"name"`
	Permissions []permission `json:"permissions"`
	User        string       `json:"user,omitempty"`
	Applied     bool         `json:"applied"`
}

// permissions returns the least permissions that a kind of client needs for the services, or with prefix for all
// services that have one of the names and "/" before their own.
func permissions(kind string, names []string, prefix bool) (all []permission) {
	if kind == "console" || wholeStore(kind) && len(names) == 0 {
		all = append(all, under("read", ""))
	}
	access := "read"
	if writes(kind) {
		access = "readwrite"
	}
	for _, name := range names {
		all = append(all, under(access, name+"/"))
		switch {
		case kind == "registrar":
		case prefix:
			all = append(all, under(access, rollcall.ConfigPrefix+name+"/"))
		default:
			all = append(all, permission{Access: access, Key: rollcall.ConfigPrefix + name})
		}
	}
	return all
}

// under is access to every key with a prefix; an empty one is the whole store.
func under(access, prefix string) permission {
	if prefix == "" {
		return permission{Access: access, Key: "\x00", RangeEnd: "\x00"}
	}
	return permission{Access: access, Key: prefix, RangeEnd: clientv3.GetPrefixRangeEnd(prefix)}
}

type rolesFlags struct {
	name, to              string
	prefix, apply, extend bool
}

func newRoles(a *app) *cobra.Command {
	var f rolesFlags
	cmd := &cobra.Command{
		Use:   "roles registrar|resolver|viewer|operator|bridge|console [SERVICE]...",
		Short: "Print or apply the etcd role that a client needs",
		Long: "roles shows the least permissions that a client needs in an etcd with authentication:\n\n" +
			"  registrar   writes the endpoints of the services: servers\n" +
			"  resolver    reads them, and the services' configs: gRPC clients\n" +
			"  viewer      the same, or without services the whole store, which ls and top need:\n" +
			"              people who look\n" +
			"  operator    writes both: people who drain, set weights and service configs\n" +
			"  bridge      as viewer: rollcall serve, a proxy for many clients\n" +
			"  console     reads the whole store, and writes as an operator what --console-writes\n" +
			"              may change: rollcall serve --console\n\n" +
			"By default it prints the etcdctl commands that create the role and changes nothing.\n" +
			"With --apply it creates the role, as a --user who may do so. A role that is there already and\n" +
			"permits more is refused, since whoever has it would be permitted both: give another --name,\n" +
			"or --extend to add to it. A role that has its name from --grant-to is that user's own, and is\n" +
			"added to. What it permits stays, and is reported.\n\n" +
			"SERVICE is a full name. With --prefix it is a prefix that ends in \"/\": the role is for all\n" +
			"services under it and their configs, and for services that are added later.",
		Example: "  rollcall roles resolver my-service\n" +
			"  rollcall roles operator --prefix team-a/ --grant-to alice\n" +
			"  rollcall roles registrar my-service --name my-service-server --grant-to my-server --apply --user root:secret",
		ValidArgs: roleKinds,
		Args:      usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := f.role(args[0], args[1:])
			if err != nil {
				return err
			}
			if f.apply {
				if err := a.applyRole(cmd.Context(), r, f); err != nil {
					return err
				}
				r.Applied = true
			}
			return a.printRole(r)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", `name of the role (default "rollcall-", the kind and, with --grant-to, the user)`)
	flags.StringVar(&f.to, "grant-to", "", "an existing etcd user who gets the role")
	flags.BoolVar(&f.prefix, "prefix", false, `the names are prefixes of services, such as "team-a/"`)
	flags.BoolVar(&f.apply, "apply", false, "create the role instead of printing the commands")
	flags.BoolVar(&f.extend, "extend", false, "with --apply, add to a role that permits more already")
	return cmd
}

func (f rolesFlags) role(kind string, names []string) (role, error) {
	if !slices.Contains(roleKinds, kind) {
		return role{}, fail(exitUsage, "unknown kind of role %q: want one of %s", kind, strings.Join(roleKinds, ", "))
	}
	switch {
	case f.extend && !f.apply:
		return role{}, fail(exitUsage, "--extend needs --apply")
	case f.name == "root": // etcd's own
		return role{}, fail(exitUsage, "--name root: etcd permits that role everything; give another name")
	}
	services, err := f.services(kind, names)
	if err != nil {
		return role{}, err
	}
	r := role{APIVersion: apiVersion, Kind: "Role", Name: f.name, User: f.to, Permissions: permissions(kind, services, f.prefix)}
	if r.Name == "" {
		r.Name = "rollcall-" + kind
		if r.User != "" { // what one user is granted is not for others who have the role
			r.Name += "-" + r.User
		}
	}
	return r, nil
}

// errNoSlash is the error of a --prefix that other names begin with as well.
func errNoSlash(name string) error {
	return fail(exitUsage, "--prefix: %q does not end in \"/\", and so would include %q; give %s, or for the service of that name leave out --prefix",
		name, name+"b/", shellQuote(name+"/"))
}

// services returns the names without a "/" at their end: of services, or of prefixes.
func (f rolesFlags) services(kind string, names []string) (services []string, err error) {
	if len(names) == 0 && f.prefix {
		return nil, fail(exitUsage, "--prefix needs a prefix; usage: rollcall roles %s --prefix PREFIX/...", kind)
	}
	if len(names) == 0 && !wholeStore(kind) {
		return nil, fail(exitUsage, "a %s needs a service; usage: rollcall roles %s SERVICE...", kind, kind)
	}
	for _, name := range names {
		stem, _, wildcard := strings.Cut(name, "*")
		switch {
		case wildcard:
			stem = stem[:strings.LastIndex(stem, "/")+1]
			return nil, fail(exitUsage, "%q: \"*\" is no wildcard; for all services under a prefix: %s", name,
				shellLineWith("rollcall roles "+kind+" --prefix", cmp.Or(stem, "PREFIX/")))
		case f.prefix && name != "" && !strings.HasSuffix(name, "/"):
			return nil, errNoSlash(name)
		}
		service, err := rollcall.ParseService(name)
		if err != nil {
			return nil, err
		}
		if writes(kind) {
			if err := rollcall.CheckKey(rollcall.Key(service, "")); err != nil {
				return nil, err
			}
		}
		services = append(services, service)
	}
	return services, nil
}

func (a *app) printRole(r role) error {
	if a.json() {
		return a.printJSON(r)
	}
	if r.Applied {
		rows := [][]string{{"ROLE", "ACCESS", "KEY", "RANGE END"}}
		for _, p := range r.Permissions {
			rows = append(rows, []string{r.Name, p.Access, p.Key, p.RangeEnd})
		}
		_, err := fmt.Fprint(a.stdout, table(rows...))
		return err
	}
	lines := []string{"etcdctl role add " + shellQuote(r.Name)}
	for _, p := range r.Permissions {
		grant := "etcdctl role grant-permission " + shellQuote(r.Name) + " " + p.Access + " "
		switch p.RangeEnd {
		case "":
			grant += shellQuote(p.Key)
		case "\x00":
			grant += "--from-key ''"
		default:
			grant += "--prefix " + shellQuote(p.Key)
		}
		lines = append(lines, grant)
	}
	if r.User != "" {
		lines = append(lines, "etcdctl user grant-role "+shellQuote(r.User)+" "+shellQuote(r.Name))
	}
	_, err := fmt.Fprintln(a.stdout, strings.Join(lines, "\n"))
	return err
}

// commandWith returns the words of a command with names that others chose, and flags. Where a name looks like a flag,
// the names are last, behind "--".
func commandWith(command string, names []string, flags ...string) []string {
	words := strings.Fields(command)
	if slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, "-") }) {
		return slices.Concat(words, flags, []string{"--"}, names)
	}
	return slices.Concat(words, names, flags)
}

// shellLineWith is a command with names for a shell.
func shellLineWith(command string, names ...string) string {
	return shellLine(commandWith(command, names))
}

// shellLine is a command line for a shell.
func shellLine(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = shellQuote(word)
	}
	return strings.Join(quoted, " ")
}

// shellQuote quotes a word for a shell, on one line and without unprintable characters.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-:@%+=,", r)
	}
	switch {
	case s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }):
		return s
	case safe(s) == s:
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, `\x%02x`, c)
	}
	return "$'" + b.String() + "'"
}
