// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

var serverChecks = []check{
	{"server-silent", Error, "Clients that are given it dial in vain; with pick_first and few endpoints calls fail. It died without a lease, or cannot be reached from here alone.",
		"Start the server, or remove its key. If it does run, see the network between here and there.", silentServers},
	{"server-no-grpc", Warning, "Something listens there, and does not speak gRPC as doctor dialled it: another program has the port, or the server wants TLS.",
		"If servers speak TLS, give --tls, --tls-ca or --tls-skip-verify; else see what listens there.", strangeServers},
	{"server-unhealthy", Error, "It tells whoever asks that it cannot serve, and clients that do not ask call it.",
		"See its log. Let it deregister or drain while it is unhealthy: rollcall register --check does.", unhealthyServers},
}

// healthServing is the health of a server that serves.
const healthServing = "SERVING"

// serversWhere returns a finding a service, about the serving endpoints that were dialled and whose answers
// are of a kind.
func serversWhere(f *Facts, what string, about func(Answer) string, met func(Answer) bool, commands func([]*inventory.Instance) [][]string) []Finding {
	return f.eachService(func(s Service) []Finding {
		rows := s.where(func(row *inventory.Instance) bool {
			answer, dialled := f.Answers[row.Addr]
			return dialled && row.Status == inventory.Serving && !f.Changed[row.Key] && met(answer)
		})
		if len(rows) == 0 {
			return nil
		}
		finding := ofService(s.Name, rows, what, func(row *inventory.Instance) string { return row.Addr + ": " + about(f.Answers[row.Addr]) })
		finding.Commands = commands(rows)
		return []Finding{finding}
	})
}

func ping(rows []*inventory.Instance) [][]string {
	return [][]string{{"rollcall", "ping", rows[0].Service}}
}

func silentServers(f *Facts) []Finding {
	return serversWhere(f, "%s cannot be reached", func(a Answer) string { return a.Error }, func(a Answer) bool { return !a.Connected },
		func(rows []*inventory.Instance) [][]string {
			return append(ping(rows), forEach(rows, command("rm"))...)
		})
}

func strangeServers(f *Facts) []Finding {
	return serversWhere(f, "connections to %s open, but no gRPC call is answered", func(a Answer) string { return a.Error },
		func(a Answer) bool { return a.Connected && !a.Answers }, ping)
}

func unhealthyServers(f *Facts) []Finding {
	return serversWhere(f, "%s not healthy", func(a Answer) string { return a.Health },
		func(a Answer) bool { return a.Answers && !a.serves() },
		func(rows []*inventory.Instance) [][]string {
			return append(ping(rows), forEach(rows, command("drain"))...)
		})
}
