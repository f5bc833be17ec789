// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

var serverChecks = []check{
	{"server-silent", Error, "Clients that are given it dial in vain; with pick_first and few endpoints calls fail.", "", silentServers},
	{"server-no-grpc", Warning, "Something listens there, and does not speak gRPC as doctor dialled it: another program has the port, or the server wants TLS.",
		"If servers speak TLS, give --tls, --tls-ca or --tls-skip-verify; else see what listens there.", strangeServers},
	{"server-unhealthy", Error, "It tells whoever asks that it cannot serve, and clients that do not ask call it.",
		"See its log. Let it deregister or drain while it is unhealthy: rollcall register --check does.", unhealthyServers},
}

// healthServing is the health of a server that serves.
const healthServing = "SERVING"

// serversWhere returns a finding a service, about the serving endpoints that were dialled and for which met holds.
func serversWhere(f *Facts, what string, about func(*inventory.Instance, Answer) string, met func(*inventory.Instance, Answer) bool) []Finding {
	return f.eachService(func(s Service) []Finding {
		rows := s.where(func(row *inventory.Instance) bool {
			answer, dialled := f.Answers[row.Addr]
			return dialled && row.Status == inventory.Serving && !f.Changed[row.Key] && met(row, answer)
		})
		if len(rows) == 0 {
			return nil
		}
		finding := ofService(s.Name, rows, what, func(row *inventory.Instance) string { return row.Addr + ": " + about(row, f.Answers[row.Addr]) })
		finding.Commands = calls("rollcall ping", s.Name)
		return []Finding{finding}
	})
}

func causeOf(_ *inventory.Instance, a Answer) string { return a.Error }

// silentServers finds servers that cannot be reached. What is to be done depends on what becomes of their keys.
func silentServers(f *Facts) (found []Finding) {
	about := func(row *inventory.Instance, a Answer) string {
		if ttl := f.Watched[row.Lease].TTL; ttl.Granted > 0 {
			return fmt.Sprintf("%s; %d of %d s left", a.Error, ttl.Left, ttl.Granted)
		}
		return a.Error
	}
	for _, kind := range silentKinds {
		for _, finding := range serversWhere(f, kind.what, about, func(row *inventory.Instance, a Answer) bool {
			watched, known := f.Watched[row.Lease]
			return !a.Connected && kind.met(row.Lease != "", known, watched)
		}) {
			if silent, cutOff := f.cutOff(); cutOff {
				finding.Fix = silent + " can be reached from here: see the network between here and there, before anything is removed."
			} else {
				finding.Fix = kind.fix
				finding.Commands = append(finding.Commands, kind.commands(finding, f)...)
			}
			found = append(found, finding)
		}
	}
	return found
}

// silentKinds are what may become of the key of a server that cannot be reached.
var silentKinds = []struct {
	what, fix string
	commands  func(Finding, *Facts) [][]string
	met       func(leased, lookedUp bool, lease Watched) bool
}{
	{"%s without a lease cannot be reached",
		"Nothing takes it out by itself: start the server, or remove its key if it is gone for good. Where connections are not refused, see the network between here and there first.",
		func(found Finding, f *Facts) [][]string { return forEach(f.refusing(found.rows), "rollcall rm") },
		func(leased, _ bool, _ Watched) bool { return !leased }},
	{"%s cannot be reached, although the lease is renewed",
		"What registered the server runs: see whether the server does, whether it listens at this address and port, and for firewalls " +
			"between here and there. There is no key to remove: it would come back.",
		func(Finding, *Facts) [][]string { return nil },
		func(_, _ bool, lease Watched) bool { return lease.Renewed }},
	{"%s cannot be reached, and nothing was seen to renew the lease",
		"Wait: if the server has died, the end of the lease takes it out. Start the server again if it is needed.",
		showLease, func(_, _ bool, lease Watched) bool { return lease.Through && !lease.Renewed }},
	{"%s cannot be reached, and the lease was not watched for long enough to see whether it is renewed",
		"Look a third of the TTL later whether more is left than if nothing had renewed it: then what registered the server runs. " +
			"Else wait: the end of the lease takes it out.",
		showLease, func(_, lookedUp bool, lease Watched) bool { return lookedUp && !lease.Through && !lease.Renewed }},
	{"%s cannot be reached, and the lease could not be looked up",
		"See what is found of etcd, and run doctor again: what is to be done depends on whether the lease is renewed.",
		showLease, func(leased, lookedUp bool, _ Watched) bool { return leased && !lookedUp }},
}

func showLease(found Finding, _ *Facts) [][]string { return calls("rollcall get", found.Service) }

// refusing returns those of the rows whose hosts answer that nothing listens there.
func (f *Facts) refusing(rows []*inventory.Instance) []*inventory.Instance {
	return slices.DeleteFunc(slices.Clone(rows), func(row *inventory.Instance) bool {
		return !strings.Contains(f.Answers[row.Addr].Error, "connection refused")
	})
}

// fewServers are too few to blame the network if none of them can be reached.
const fewServers = 2

// cutOff reports whether hardly any of the servers that were dialled can be reached, one in ten at most, and says so.
func (f *Facts) cutOff() (hardlyAny string, _ bool) {
	reached, dialled := 0, len(f.Answers)
	for _, a := range f.Answers {
		if a.Connected {
			reached++
		}
	}
	hardlyAny = "No server that was dialled"
	if reached > 0 {
		hardlyAny = fmt.Sprintf("Only %d of %d servers that were dialled", reached, dialled)
	}
	return hardlyAny, dialled > fewServers && 10*reached <= dialled
}

func strangeServers(f *Facts) []Finding {
	silent := func(a Answer) bool { return strings.Contains(a.Error, context.DeadlineExceeded.Error()) }
	hung := serversWhere(f, "connections to %s open, and nothing answers", causeOf,
		func(_ *inventory.Instance, a Answer) bool { return a.Connected && !a.Answers && silent(a) })
	for i := range hung {
		hung[i].Severity = Error
		hung[i].Why = "Calls to it hang until their deadlines: it has stopped, or is overloaded; or something else than gRPC listens there."
		hung[i].Fix = "See its log, CPU and memory, and start it again if it hangs."
	}
	return append(hung, serversWhere(f, "connections to %s open, but no gRPC call is answered", causeOf,
		func(_ *inventory.Instance, a Answer) bool { return a.Connected && !a.Answers && !silent(a) })...)
}

func unhealthyServers(f *Facts) []Finding {
	found := serversWhere(f, "%s not healthy", func(_ *inventory.Instance, a Answer) string { return a.Health },
		func(_ *inventory.Instance, a Answer) bool { return a.Answers && !a.serves() })
	for i := range found {
		found[i].Commands = append(found[i].Commands, forEach(found[i].rows, "rollcall drain")...)
	}
	return found
}
