// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"

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
	silent := func(what string, about func(*inventory.Instance, Answer) string, met func(*inventory.Instance) bool) []Finding {
		return serversWhere(f, what, about, func(row *inventory.Instance, a Answer) bool { return !a.Connected && met(row) })
	}
	renewed := func(row *inventory.Instance) bool { return f.Watched[row.Lease].Renewed }
	for _, finding := range silent("%s without a lease cannot be reached", causeOf, func(row *inventory.Instance) bool { return row.Lease == "" }) {
		finding.Fix = "Nothing takes it out by itself: start the server, or remove its key. If it does run, see the network between here and there."
		finding.Commands = append(finding.Commands, forEach(finding.rows, "rollcall rm --yes")...)
		found = append(found, finding)
	}
	for _, finding := range silent("%s cannot be reached, although the lease is renewed", causeOf, renewed) {
		finding.Fix = "What registered the server runs: see whether the server does, whether it listens at this address and port, and for firewalls " +
			"between here and there. There is no key to remove: it would come back."
		found = append(found, finding)
	}
	left := func(row *inventory.Instance, a Answer) string {
		if ttl := f.Watched[row.Lease].TTL; ttl.Granted > 0 {
			return fmt.Sprintf("%s; %d of %d s left", a.Error, ttl.Left, ttl.Granted)
		}
		return a.Error
	}
	for _, finding := range silent("%s cannot be reached, and nothing was seen to renew the lease", left, func(row *inventory.Instance) bool {
		return row.Lease != "" && !renewed(row)
	}) {
		finding.Fix = "Wait: if the server has died, the end of the lease takes it out. Start the server again if it is needed."
		finding.Commands = append(finding.Commands, call("rollcall get", finding.Service))
		found = append(found, finding)
	}
	return found
}

func strangeServers(f *Facts) []Finding {
	return serversWhere(f, "connections to %s open, but no gRPC call is answered", causeOf,
		func(_ *inventory.Instance, a Answer) bool { return a.Connected && !a.Answers })
}

func unhealthyServers(f *Facts) []Finding {
	found := serversWhere(f, "%s not healthy", func(_ *inventory.Instance, a Answer) string { return a.Health },
		func(_ *inventory.Instance, a Answer) bool { return a.Answers && !a.serves() })
	for i := range found {
		found[i].Commands = append(found[i].Commands, forEach(found[i].rows, "rollcall drain")...)
	}
	return found
}
