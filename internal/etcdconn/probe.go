// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdconn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

var errProbeEnded = errors.New("watch ended without a reason")

// check returns why etcd cannot be reached. It asks etcd where the connection is in doubt or
// there is no watch that could tell, then probes the stream where that was silent, then
// verifies the epoch where that is suspect.
func (m *Monitor) check(ctx context.Context) error {
	if cause := etcdkv.Disconnected(ctx, m.opts.Client); cause != nil {
		return cause
	}
	_, readable := m.opts.ProbeKeys(1)
	m.mu.Lock()
	down := m.status.Outage != nil
	ask := m.recheck || down || !readable
	probe := readable && (down || !m.streamProven || time.Since(m.lastMessage) >= silenceLimit)
	suspect := m.epochSuspect
	m.epochSuspect = false
	m.mu.Unlock()
	err := m.prove(ctx, ask, probe, suspect)
	if err != nil && suspect {
		m.mu.Lock()
		m.epochSuspect = true
		m.mu.Unlock()
	}
	return err
}

func (m *Monitor) prove(ctx context.Context, ask, probe, suspect bool) error {
	if ask {
		if err := m.ask(ctx); err != nil {
			return err
		}
	}
	if probe {
		if err := m.probeStream(ctx); err != nil {
			return fmt.Errorf("watch stream: %w", err)
		}
	}
	if suspect {
		if err := m.verifyEpoch(ctx); err != nil {
			return fmt.Errorf("verify the epoch: %w", err)
		}
	}
	return nil
}

// ask asks etcd for a key, linearizably. A refusal is an answer as well. It bypasses
// clientv3's own retries, which would hide for seconds that there is no leader, unless the
// token was refused: then clientv3 logs in, once for all that wait for the answer.
func (m *Monitor) ask(ctx context.Context) error {
	err := rpctypes.ErrInvalidAuthToken
	if conn := m.opts.Client.ActiveConnection(); conn != nil { // nil: a client made of parts, in tests
		call, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), etcdkv.CallTimeout)
		defer cancel()
		_, err = pb.NewKVClient(conn).Range(call, &pb.RangeRequest{Key: []byte(m.probeKey()), CountOnly: true}, grpc.WaitForReady(false))
		err = etcdkv.Explain(ctx, m.opts.Client, rpctypes.Error(err))
	}
	if etcdkv.TokenRefused(err) {
		_, err = etcdkv.Get(clientv3.WithRequireLeader(ctx), m.opts.Client, m.probeKey(), clientv3.WithCountOnly())
	}
	if err != nil && !etcdkv.IsAnswer(err) {
		if errors.As(err, new(rpctypes.EtcdError)) {
			err = fmt.Errorf("etcd at %s: %w", strings.Join(m.opts.Client.Endpoints(), ", "), err)
		}
		return err
	}
	if _, readable := m.opts.ProbeKeys(1); !readable { // there is no stream to hear from
		m.mu.Lock()
		m.lastMessage = time.Now()
		m.mu.Unlock()
	}
	return nil
}

// probeStream proves that the watch stream lives, by a second, short watch on it: clientv3
// sends it over the same gRPC stream and the member answers with a created notice.
// (A progress request would not do: a member leaves it unanswered while one of the
// stream's watches waits for a revision that the store has not reached, which is the
// usual state in an idle cluster.) A stream that does not answer is replaced.
func (m *Monitor) probeStream(ctx context.Context) error {
	status, _ := m.Status()
	pctx, cancel := context.WithTimeout(m.StreamContext(ctx, status.Stream), etcdkv.CallTimeout)
	defer cancel()
	key := etcdkv.SingleKey(m.probeKey())
	resp, ok := <-etcdkv.Watch(pctx, m.opts.Client, key, 0)
	switch err := etcdkv.Typed(resp.Err()); {
	case ok && (resp.Created || etcdkv.IsAnswer(err) && (m.proven(status.Stream) || !etcdkv.TokenRefused(err))):
		m.ObserveMessage(status.Stream, resp.Header)
		if resp.Created && m.proxied(pctx, key, resp.Header.GetRevision()) {
			m.verifyAll()
		}
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		m.ReplaceStream(status.Stream)
		return err
	case pctx.Err() != nil:
		m.ReplaceStream(status.Stream)
		return etcdkv.NoAnswer(m.opts.Client)
	}
	m.ReplaceStream(status.Stream)
	return errProbeEnded
}

// proxied reports whether the connection leads to etcd's grpc-proxy. That has a watch join
// another one of the same key, and then answers by itself and names no cluster. So a second watch of
// key is opened beside the probe, from the next revision on, once a connection.
func (m *Monitor) proxied(ctx context.Context, key etcdkv.KeyRange, revision int64) bool {
	m.mu.Lock()
	proxied, known, since := m.proxy, m.proxyKnown, m.connSince
	m.mu.Unlock()
	if known {
		return proxied
	}
	resp := <-etcdkv.Watch(ctx, m.opts.Client, key, revision+1)
	proxied = resp.Created && resp.Header.GetClusterId() == 0
	m.mu.Lock()
	defer m.mu.Unlock()
	if since.Equal(m.connSince) { // else it may be another connection by now
		m.proxy, m.proxyKnown = proxied, resp.Created
	}
	return proxied
}

// verifyAll has everybody compare what they have with etcd: behind a proxy the stream proves nothing
// about etcd, and a watch may have joined one that has ended.
func (m *Monitor) verifyAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changeLocked(func(s *Status) { s.Verify++ })
}

// proven reports whether the watch stream has delivered a message since it was opened.
func (m *Monitor) proven(stream uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.streamProven && stream == m.status.Stream
}

// endReplacedStreams ends the streams that were replaced. clientv3 keeps one open whose
// watches were cancelled before the member had answered, until another watch on it ends.
func (m *Monitor) endReplacedStreams(ctx context.Context) {
	m.mu.Lock()
	streams := m.replaced
	m.replaced = nil
	m.mu.Unlock()
	for _, stream := range streams {
		wctx, cancel := context.WithTimeout(m.StreamContext(ctx, stream), etcdkv.CallTimeout)
		resp, ok := <-etcdkv.Watch(wctx, m.opts.Client, etcdkv.SingleKey(m.probeKey()), 0)
		cancel()
		if !ok || !resp.Created && !etcdkv.IsAnswer(etcdkv.Typed(resp.Err())) {
			m.mu.Lock()
			m.replaced = append(m.replaced, stream)
			m.mu.Unlock()
		}
	}
}

// probeKey returns a key to ask for, if possible one that may be read.
func (m *Monitor) probeKey() string {
	if keys, _ := m.opts.ProbeKeys(1); len(keys) > 0 {
		return keys[0]
	}
	return "\x00"
}
