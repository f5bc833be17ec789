// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

// row is one line of the catalogue: what goes wrong, and what is promised then. Tests
// name their row: TestW1HistoryCompacted is of W1, TestProxyW1Follows of ProxyW1.
type row struct{ id, fault, promise string }

// section is a part of the table.
type section struct {
	title string
	rows  []row
}

var catalogue = []section{
	{"Watching", []row{
		{"W1", "revisions compacted while cut off", "lists again within 1 s of reconnecting; the exact set, in one update"},
		{"W2", "compacted between list and watch", "lists again at once"},
		{"W3", "a partitioned member still answers", "the client moves on; staleness is visible within 3 election time-outs and 2 s"},
		{"W4", "half-open connection", "recovered within 15 s by a second member; without one marked stale within 15 s"},
		{"W5", "all data lost, same URLs", "a new epoch is noticed and followed; no false alarm"},
		{"W6", "restored from a snapshot, and the revision overtakes", "the consistency check finds and mends it"},
		{"W7", "restored with a bumped revision", "as W1"},
		{"W8", "members killed in turn", "no event lost, no call failed"},
		{"W9", "outage of 75 s", "live within 5 s"},
		{"W10", "permission revoked, the stream breaks, granted again", "a typed error; retried for ever; recovers"},
		{"W11", "1,000 writes of the same value; 10,000 joins", "states conflated, equal ones skipped"},
		{"W12", "50,000 keys with 1 KiB of metadata", "listed at one revision, watched in fragments"},
		{"W13", "watch channel closed without an error", "opened again"},
		{"W14", "a consumer that is stuck", "no other consumer waits; Close returns"},
		{"W15", "50 services list again after a compaction", "all within 1 s of reconnecting"},
		{"W16", "no leader for minutes", "the connection asks for one; requests do not grow with services"},
	}},
	{"Resolving", []row{
		{"G1", "etcd down, mute or a black hole at Build", "Build at once; calls fail after 1 s with etcd's own error; Close at once; heals"},
		{"G2", "no permission at Build", "Build succeeds; calls fail and say why; heals with the grant"},
		{"G3", "the channel goes idle, then etcd stops", "the process still knows the endpoints and serves them at once"},
		{"G4", "unknown or empty service", "calls fail within 2 s and name service, prefix and revision; the first endpoint heals"},
		{"G5", "the process restarts while etcd is down", "opt-in: the cache on disk serves what was last known, with its age"},
		{"G6", "most endpoints vanish at once", "opt-in: retained for a bounded time; never what drained first"},
		{"G7", "bad values", "no endpoint, for all clients alike; neighbours unharmed"},
		{"G8", "two keys, one address", "one endpoint, the newest"},
		{"G9", "spellings of a target", "normalised, or refused at once"},
		{"G10", "hostile addresses", "host:port only; opt-in list of networks; no server name from the registry"},
		{"G11", "1,000 channels opened and closed under each fault", "nothing leaks"},
		{"G12", "the last endpoint leaves a channel in use", "calls fail naming service, prefix, revision and reason, with every policy; the next endpoint heals"},
		{"G13", "ring_hash: ids that end alike, equal hash keys", "every server gets its share; all clients agree"},
		{"G14", "the cache on disk is huge, hangs, was being written by a process that was killed", "no delay; nothing is left behind"},
	}},
	{"Registering", []row{
		{"L1", "cut off for longer than the TTL", "back within 2 s of mending, under the same key"},
		{"L2", "etcd loses its data", "registered again within 2 s, spread"},
		{"L3", "process paused for longer than the TTL", "back within 2 s of waking"},
		{"L4", "outage longer than the TTL, data kept", "no hole beyond 3 s"},
		{"L5", "own key deleted, edited, taken over", "put back; preserved; yielded"},
		{"L6", "the old instance deregisters late", "its successor's key is untouched"},
		{"L7", "answers to writes and grants are lost", "no ghost is left"},
		{"L8", "kill -9", "gone within TTL + 2 s"},
		{"L9", "keepalives and a lost leader", "never for a lease without an owner"},
		{"L10", "etcd is full", "a typed error, retried; registered endpoints stay"},
		{"L11", "over the server's limits", "a typed error that names limit and size; nothing written"},
		{"L12", "metadata changed while running", "same key, same lease, one event"},
		{"L13", "a create is stuck in a frozen connection, its registration closed, the connection thaws", "no key comes back"},
		{"L14", "rights revoked, cut off for longer than the TTL, mended", "registered is said only while etcd has the key"},
		{"L15", "an operator's edit, then an update, a health flap, a plain put", "the operator's status stays; a value without a lease is taken as it is"},
		{"L16", "keys of a large registrar with a long TTL are deleted", "back within 10 s"},
		{"L17", "closed while etcd is away", "in bounded time; only what is known is said"},
		{"L18", "a whole fleet comes back at once", "at a bounded rate, nothing twice, within 5 s"},
		{"L19", "a member hangs, with the keepalives of a third of the fleet", "no endpoint goes"},
		{"L20", "a member has no leader, or hangs, while servers leave", "drained and deregistered within 1 s, or 4 s"},
	}},
	{"Access", []row{
		{"A1", "the token expires, simple and JWT", "a running watch goes on; re-connection works"},
		{"A2", "etcd is down at the start, with a user", "connects when it is there"},
		{"A3", "certificate expired, rotated, of another authority", "reloaded without a restart; a clear error; never in plain text"},
		{"A4", "over-broad rights", "least-privilege roles are enough, and no more"},
		{"A5", "AutoSync", "off"},
		{"A6", "pings", "none too many: no GOAWAY"},
		{"A7", "500 channels, 500 clients, etcd restarts", "all follow again within 5 s; the rate at etcd is measured"},
		{"A9", "range options given to a manager's add or delete", "InvalidArgument, nothing written or deleted"},
		{"A10", "_grpc_config given as a service", "refused wherever an endpoint is written or registered"},
		{"A8", "a user with a password, 200 services", "at most 5 logins, none while idle, none for consistency checks or refusals; ready within a login and twice the time without a user"},
		{"A11", "lists while etcd is away", "wait as long as the caller does; etcd's own error, never that of a timer within"},
	}},
	{"Through etcd's grpc-proxy", []row{
		{"ProxyW1", "as W1", "as W1"},
		{"ProxyW5", "as W5", "as W5"},
		{"ProxyW8", "as W8", "as W8"},
		{"ProxyW9", "as W9", "as W9"},
	}},
	{"Against etcd 3.6.16", []row{
		{"Etcd36W1", "as W1", "as W1, with lists in pages"},
		{"Etcd36W2", "as W2", "as W2"},
		{"Etcd36W4", "as W4", "as W4"},
		{"Etcd36W5", "as W5", "as W5"},
		{"Etcd36W12", "as W12", "as W12, with lists in pages"},
	}},
}
