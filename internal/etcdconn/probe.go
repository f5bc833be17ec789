// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdconn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// check returns why etcd cannot be reached. It asks etcd where the connection is in doubt or
// there is no watch that could tell, then probes the stream where that was silent, then
// verifies the epoch where that is suspect. In the first check after a reconnection the stream comes
// first: clientv3 logs in to open it, and asks with that token.
func (m *Monitor) check(ctx context.Context) error {
	if cause := etcdkv.Disconnected(ctx, m.opts.Client); cause != nil {
		return cause
	}
	_, readable := m.opts.ProbeKeys(1)
	m.mu.Lock()
	down := m.status.Outage != nil
	ask := m.recheck || down || !readable
	probe := readable && (down || !m.streamProven || time.Since(m.lastMessage) >= silenceLimit)
	suspect, reconnected := m.epochSuspect, m.reconnected
	m.epochSuspect, m.reconnected = false, false
	m.mu.Unlock()
	var steps []func(context.Context) error
	if ask {
		steps = append(steps, m.ask)
	}
	if probe {
		steps = append(steps, m.probeStream)
	}
	if reconnected {
		slices.Reverse(steps)
	}
	if suspect {
		steps = append(steps, m.verifyEpoch)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			m.mu.Lock()
			m.epochSuspect = m.epochSuspect || suspect
			m.mu.Unlock()
			return m.named(err)
		}
	}
	return nil
}

// named adds to an error of etcd's which etcd that is.
func (m *Monitor) named(err error) error {
	if errors.As(err, new(rpctypes.EtcdError)) {
		return fmt.Errorf("etcd at %s: %w", strings.Join(m.opts.Client.Endpoints(), ", "), err)
	}
	return err
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
		return err
	}
	if _, readable := m.opts.ProbeKeys(1); !readable { // there is no stream to hear from
		m.mu.Lock()
		m.lastMessage = time.Now()
		m.mu.Unlock()
	}
	return nil
}

// probeStream proves that the watch stream lives, by a second, short watch on it, which the member
// answers. (A progress request would not do: a member leaves it unanswered while one of the
// stream's watches waits for a revision that the store has not reached, which is the
// usual state in an idle cluster.) A stream that does not answer is replaced.
func (m *Monitor) probeStream(ctx context.Context) error {
	pctx, cancel := context.WithTimeout(ctx, etcdkv.CallTimeout)
	defer cancel()
	key := etcdkv.SingleKey(m.probeKey())
	probe := m.Watch(key, 0)
	defer probe.Close()
	resp, err := probe.First(pctx)
	switch {
	case err == nil || etcdkv.IsAnswer(err) && (m.proven(probe.Generation()) || !etcdkv.TokenRefused(err)):
		if err != nil { // a refusal is a message as well
			m.observeMessage(probe.Generation(), resp.Header)
		}
		if err == nil && m.proxied(pctx, key, resp.Header.GetRevision()) {
			m.verifyAll()
		}
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, etcdkv.ErrStreamReplaced): // by a Reflector whose token was refused
		return m.probeStream(ctx)
	case pctx.Err() != nil:
		err = etcdkv.NoAnswer(m.opts.Client)
	}
	m.ReplaceStream(probe.Generation())
	if !errors.As(err, new(rpctypes.EtcdError)) { // etcd's own say the same wherever they come from
		err = fmt.Errorf("watch stream: %w", err)
	}
	return err
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
	second := m.Watch(key, revision+1)
	defer second.Close()
	resp, err := second.First(ctx)
	proxied = err == nil && resp.Header.GetClusterId() == 0
	m.mu.Lock()
	defer m.mu.Unlock()
	if since.Equal(m.connSince) { // else it may be another connection by now
		m.proxy, m.proxyKnown = proxied, err == nil
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

// proven reports whether the generation of the watch stream is the present one, and has delivered a message.
func (m *Monitor) proven(generation uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.streamProven && generation == m.watches.Generation()
}

// probeKey returns a key to ask for, if possible one that may be read.
func (m *Monitor) probeKey() string {
	if keys, _ := m.opts.ProbeKeys(1); len(keys) > 0 {
		return keys[0]
	}
	return "\x00"
}
