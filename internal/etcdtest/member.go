// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"os"
	"strings"
	"testing"
)

// Member is one etcd of a Cluster. Its methods fail the test when they cannot do what
// they say. Its addresses and its data directory stay the same as long as it lives.
type Member struct {
	tb   testing.TB
	name string
	host string // host:port for clients
	peer string // URL for the other members
	argv []string
	data string
	log  string
	all  string // --initial-cluster

	proc   *process // nil before the first Start
	paused bool
}

// Name returns the member's name.
func (m *Member) Name() string { return m.name }

// Addr returns the host:port that clients dial.
func (m *Member) Addr() string { return m.host }

// URL returns the address that clients dial as a URL.
func (m *Member) URL() string { return "http://" + m.host }

// DataDir returns the data directory.
func (m *Member) DataDir() string { return m.data }

// Running tells whether the process is there; a paused one is.
func (m *Member) Running() bool { return m.proc != nil && m.proc.running() }

// Start runs the process and does not wait until it answers: see Cluster.WaitReady.
func (m *Member) Start() {
	m.tb.Helper()
	if m.Running() {
		m.tb.Fatalf("etcdtest: start %s: it runs already", m.name)
	}
	proc, err := startProcess(m.argv, m.log)
	if err != nil {
		m.tb.Fatalf("etcdtest: start %s: %v", m.name, err)
	}
	m.proc, m.paused = proc, false
}

// Stop asks the member to shut down and waits until it has.
func (m *Member) Stop() {
	m.tb.Helper()
	m.mustRun("stop")
	if !m.proc.stop() {
		m.tb.Errorf("etcdtest: %s did not stop within %v and was killed", m.name, stopTimeout)
	}
}

// Kill ends the process as kill -9 does.
func (m *Member) Kill() {
	m.tb.Helper()
	m.mustRun("kill")
	m.proc.kill()
}

// Pause stops the process from running; its connections stay open.
func (m *Member) Pause() {
	m.tb.Helper()
	m.mustRun("pause")
	if err := pause(m.proc.child); err != nil {
		m.tb.Fatalf("etcdtest: pause %s: %v", m.name, err)
	}
	m.paused = true
}

// Resume undoes Pause.
func (m *Member) Resume() {
	m.tb.Helper()
	m.mustRun("resume")
	if err := resume(m.proc.child); err != nil {
		m.tb.Fatalf("etcdtest: resume %s: %v", m.name, err)
	}
	m.paused = false
}

// Wipe removes all data of a stopped member. A member of one then starts a new history
// at revision 1, under the same addresses and cluster ID. One of three that is wiped
// alone does not come up again; wipe all three.
func (m *Member) Wipe() {
	m.tb.Helper()
	m.mustNotRun("wipe")
	if err := os.RemoveAll(m.data); err != nil {
		m.tb.Fatalf("etcdtest: wipe %s: %v", m.name, err)
	}
}

// Restore replaces all data of a stopped member by the snapshot in file, which
// "etcdctl snapshot save" wrote. Flags are those of "etcdutl snapshot restore", such as
// --bump-revision. Every member of a cluster must be restored from the same snapshot.
func (m *Member) Restore(file string, flags ...string) {
	m.tb.Helper()
	m.Wipe()
	args := []string{"snapshot", "restore", file, "--data-dir", m.data, "--name", m.name,
		"--initial-cluster", m.all, "--initial-cluster-token", token, "--initial-advertise-peer-urls", m.peer}
	Etcdutl(m.tb, append(args, flags...)...)
}

// answers tells whether the member can be expected to.
func (m *Member) answers() bool { return m.Running() && !m.paused }

func (m *Member) mustRun(verb string) {
	m.tb.Helper()
	if !m.Running() {
		m.tb.Fatalf("etcdtest: %s %s: it does not run", verb, m.name)
	}
}

func (m *Member) mustNotRun(verb string) {
	m.tb.Helper()
	if m.Running() {
		m.tb.Fatalf("etcdtest: %s %s: it runs", verb, m.name)
	}
}

// logTail returns the last lines that the member wrote.
func (m *Member) logTail() string {
	b, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	const keep = 30
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	lines = lines[max(0, len(lines)-keep):]
	return "last lines of its log:\n" + strings.Join(lines, "\n")
}
