// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"errors"
	"os"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Member is an etcd of a Cluster. Its methods fail the test if they do not succeed. Its addresses
// and its data directory never change.
type Member struct {
	Server
	cluster  *Cluster
	index    int
	peer     string // URL for the other members
	data     string
	cert     *Certificate // nil without TLS
	isolated bool
}

// Index returns the number of the member: Cluster.Member(m.Index()) is m.
func (m *Member) Index() int { return m.index }

// URL returns the address that clients dial as a URL.
func (m *Member) URL() string { return m.cluster.scheme() + "://" + m.host }

// DataDir returns the data directory.
func (m *Member) DataDir() string { return m.data }

// Certificate returns the member's certificate, or nil without Options.TLS. etcd reads it for every
// connection.
func (m *Member) Certificate() *Certificate { return m.cert }

// Wipe removes all data of a stopped member. A single member then starts a new epoch at revision 1,
// with the same addresses and cluster ID. If one of three is wiped, it does not start again: wipe
// all three.
func (m *Member) Wipe() {
	m.tb.Helper()
	m.mustNotRun("wipe")
	if err := os.RemoveAll(m.data); err != nil {
		m.tb.Fatalf("etcdtest: wipe %s: %v", m.name, err)
	}
}

// Save writes a snapshot of the member's data to file, for Restore.
func (m *Member) Save(file string) {
	m.tb.Helper()
	m.cluster.etcdctl(m.tb, []string{m.host}, "snapshot", "save", file)
}

// Restore replaces all data of a stopped member by the snapshot in file, which Save
// wrote. Flags are those of "etcdutl snapshot restore", such as --bump-revision. Every
// member of a cluster must be restored from the same snapshot.
func (m *Member) Restore(file string, flags ...string) {
	m.tb.Helper()
	m.Wipe()
	args := []string{"snapshot", "restore", file, "--data-dir", m.data, "--name", m.name,
		"--initial-cluster", m.cluster.initialCluster(), "--initial-cluster-token", token,
		"--initial-advertise-peer-urls", m.peer}
	Etcdutl(m.tb, append(args, flags...)...)
}

// commandLine makes elections end within about two seconds, and syncs nothing to disk: only a crash
// of the machine would lose data by that.
func (m *Member) commandLine(etcd string) []string {
	argv := []string{etcd,
		"--name=" + m.name,
		"--data-dir=" + m.data,
		"--listen-client-urls=" + m.URL(), "--advertise-client-urls=" + m.URL(),
		"--listen-peer-urls=" + m.peer, "--initial-advertise-peer-urls=" + m.peer,
		"--initial-cluster=" + m.cluster.initialCluster(), "--initial-cluster-token=" + token,
		"--heartbeat-interval=100", "--election-timeout=1000",
		"--unsafe-no-fsync", "--logger=zap", "--log-outputs=stderr",
	}
	if m.cert != nil {
		argv = append(argv, "--cert-file="+m.cert.CertFile, "--key-file="+m.cert.KeyFile,
			"--trusted-ca-file="+m.cluster.ca.File(), "--client-cert-auth")
	}
	return argv
}

// answers reports whether the member is expected to answer.
func (m *Member) answers() bool { return m.Running() && !m.paused && !m.isolated }

// ask runs f with a client of only this member.
func (m *Member) ask(f func(ctx context.Context, client *clientv3.Client) error) error {
	client, err := clientv3.New(m.cluster.rootConfig(m.host))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return f(ctx, client)
}

func (m *Member) leads() bool {
	leads := false
	err := m.ask(func(ctx context.Context, client *clientv3.Client) error {
		resp, err := client.Status(ctx, m.host)
		leads = err == nil && resp.Leader == resp.Header.MemberId
		return err
	})
	return err == nil && leads
}

// linearizable makes a linearizable read. A denial counts as an answer.
func linearizable(ctx context.Context, client *clientv3.Client) error {
	_, err := client.Get(ctx, "ready")
	if errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrPermissionDenied) {
		return nil
	}
	return err
}
