// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// groupRoles has the kind of role that the commands of a group need.
var groupRoles = map[string]string{"look": "viewer", "change": "operator", "operate": "bridge"}

// commandRoles has the kind of those that need another one than their group.
var commandRoles = map[string]string{"resolve": "resolver", "config get": "viewer", "register": "registrar", "agent": "registrar",
	"doctor": "viewer", "roles": ""}

// roleFor returns the kind of role that a command needs, "" for one that roles does not have.
func roleFor(cmd *cobra.Command) string {
	if cmd == nil {
		return ""
	}
	if console := cmd.Flags().Lookup("console"); console != nil && console.Value.String() != "" {
		return "console"
	}
	_, path, _ := strings.Cut(cmd.CommandPath(), " ")
	if kind, ok := commandRoles[path]; ok {
		return kind
	}
	for ; cmd.HasParent(); cmd = cmd.Parent() {
		if kind := groupRoles[cmd.GroupID]; kind != "" {
			return kind
		}
	}
	return ""
}

// who returns the user that etcd takes this process for, "" for none: the one that is given, or else
// the name in the client certificate.
func (a *app) who() string {
	if user, _, _ := strings.Cut(a.user, ":"); user != "" || a.cert == "" {
		return user
	}
	pair, err := tls.LoadX509KeyPair(a.cert, a.key)
	if err != nil || pair.Leaf == nil {
		return ""
	}
	return pair.Leaf.Subject.CommonName
}

// reason returns the text of an error, and if etcd refused the request, what would permit it.
func (a *app) reason(err error) string {
	text := plain(err)
	if grant := a.grant(); notPermitted(err) && grant != "" {
		text += ": " + grant
	}
	return text
}

// grant says what etcd refused last, and which command grants it; "" if that is not known.
func (a *app) grant() string {
	r, user := a.refused.latest(), a.who()
	if r == nil || user == "" {
		return ""
	}
	kind, verb := roleFor(a.command), "read"
	if r.write {
		verb = "write"
		if kind == "viewer" {
			kind = "operator" // a live view that changes something
		}
	}
	if kind == "" {
		return ""
	}
	return fmt.Sprintf("user %s may not %s %s; %s", strconv.Quote(user), verb, r, a.wayIn(kind, r))
}

// wayIn names the command that permits what was refused, the narrowest where there are several.
func (a *app) wayIn(kind string, r *refusal) string {
	service, prefix := r.service(), r.prefix()
	whole := shellLine(a.permit(kind, nil))
	switch takes := argumentsOf(a.command); {
	case service != "" && (prefix == "" || len(takes) == 0 || takes[0].name != "PREFIX"):
		return "to permit it: " + shellLine(a.permit(kind, []string{service}))
	case prefix != "" && strings.HasPrefix(r.key, prefix):
		return "to permit it: " + shellLine(a.permit(kind+" --prefix", []string{prefix}))
	case prefix != "" && wholeStore(kind):
		return fmt.Sprintf("to permit %s: %s; to permit all keys: %s", shellLineWith(a.command.CommandPath(), prefix),
			shellLine(a.permit(kind+" --prefix", []string{prefix})), whole)
	case wholeStore(kind):
		return "to permit it: " + whole
	}
	return "to permit it: " + shellLine(a.permit(kind, []string{"SERVICE"}))
}

// permit returns the command by which root grants the user a role, for some services or for all; for prefixes of services
// where kind ends with " --prefix". The command ends with flags.
func (a *app) permit(kind string, services []string, flags ...string) []string {
	return commandWith("rollcall roles "+kind, services, append([]string{"--grant-to", a.who(), "--apply", "--user", "root"}, flags...)...)
}

// refusal is what etcd did not permit: to read or write the keys from key up to, not including,
// rangeEnd, or key alone if that is empty.
type refusal struct {
	write         bool
	key, rangeEnd string
}

func (r refusal) String() string {
	switch r.rangeEnd {
	case "":
		return "key " + strconv.Quote(r.key)
	case "\x00":
		return "all keys from " + strconv.Quote(r.key) + " on"
	}
	return "keys " + strconv.Quote(r.key) + " to " + strconv.Quote(r.rangeEnd)
}

// service returns the service that the keys are of, "" for those of several.
func (r refusal) service() string {
	service, of := strings.CutPrefix(r.key, rollcall.ConfigPrefix)
	switch {
	case r.rangeEnd == "" && !of:
		service, _ = rollcall.SplitKey(r.key)
	case r.rangeEnd != "":
		service = strings.TrimSuffix(r.key, "/")
		if of || service == r.key || clientv3.GetPrefixRangeEnd(r.key) != r.rangeEnd {
			return ""
		}
	}
	return roleName(service)
}

// prefix returns the narrowest prefix for roles --prefix that has all of the keys or, where none has, that has those of
// them which somebody who left out the "/" at the end may have meant; "" if there is neither.
func (r refusal) prefix() string {
	if r.rangeEnd == "" || clientv3.GetPrefixRangeEnd(r.key) != r.rangeEnd || strings.HasPrefix(r.key, rollcall.ConfigPrefix) {
		return ""
	}
	name, _ := rollcall.SplitKey(r.key)
	if name == "" {
		name = r.key
	}
	if name = roleName(name); name == "" {
		return ""
	}
	return name + "/"
}

// roleName returns the name of a service or prefix if roles takes it, else "".
func roleName(name string) string {
	if _, err := rollcall.ParseService(name); err != nil || strings.Contains(name, "*") {
		return ""
	}
	return name
}
