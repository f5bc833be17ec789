// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Link is a TCP forwarder in front of an address that can be cut, frozen and slowed down.
type Link struct {
	// Set once.
	tb     testing.TB
	addr   string
	target string

	// Guarded by ops, which Cut, Freeze and Mend lock until they return.
	ops    sync.Mutex
	ln     net.Listener // nil while cut
	cancel func()       // closes every connection; set while ln is
	wg     sync.WaitGroup

	shape shape // its lock is taken after ops
}

// NewLink returns a link to target, a host:port or a URL. It is closed when the test ends.
func NewLink(tb testing.TB, target string) *Link {
	tb.Helper()
	if _, addr, ok := strings.Cut(target, "://"); ok {
		target = addr
	}
	l := &Link{
		tb:     tb,
		addr:   net.JoinHostPort("127.0.0.1", strconv.Itoa(reservePort(tb))),
		target: target,
	}
	l.shape.changed = make(chan struct{})
	l.Mend()
	tb.Cleanup(l.Cut)
	return l
}

// Addr returns the host:port to dial instead of the target.
func (l *Link) Addr() string { return l.addr }

// Cut closes every connection and refuses new ones. It undoes Freeze.
func (l *Link) Cut() {
	l.ops.Lock()
	defer l.ops.Unlock()
	if l.ln != nil {
		l.ln.Close()
		l.cancel()
		l.wg.Wait()
		l.ln = nil
	}
	l.shape.set(func(s *shape) { s.frozen = false })
}

// Freeze stops forwarding in both directions. Connections stay open and new ones can be made, but
// nothing that is sent after Freeze has returned arrives before Mend. A link that is cut stays
// cut.
func (l *Link) Freeze() {
	l.ops.Lock()
	defer l.ops.Unlock()
	if l.ln != nil {
		l.shape.set(func(s *shape) { s.frozen = true })
	}
}

// Delay sets the latency of each direction. Order and throughput stay. It applies to data under way
// too. 0 removes it.
func (l *Link) Delay(d time.Duration) {
	l.shape.set(func(s *shape) { s.delay = d })
}

// Limit is the throughput of the link, in each direction, for all its connections
// together. The kernel's buffers accept a few megabytes at once. 0 removes the limit.
func (l *Link) Limit(bytesPerSecond int) {
	l.shape.set(func(s *shape) { s.rate, s.free = bytesPerSecond, [2]time.Time{} })
}

// Mend undoes Cut, Freeze, Delay and Limit. Data under way arrives at once.
func (l *Link) Mend() {
	l.tb.Helper()
	l.ops.Lock()
	defer l.ops.Unlock()
	l.shape.set(func(s *shape) { s.settings = settings{} })
	if l.ln != nil {
		return
	}
	ln, err := net.Listen("tcp", l.addr)
	// The port is reserved, but connections that were just cut may still use it.
	for deadline := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		ln, err = net.Listen("tcp", l.addr)
	}
	if err != nil {
		l.tb.Fatalf("etcdtest: mend link: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.ln, l.cancel = ln, cancel
	l.wg.Go(func() { l.accept(ctx, ln) })
}

func (l *Link) accept(ctx context.Context, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		l.wg.Go(func() { l.serve(ctx, conn) })
	}
}

// serve forwards one connection until either side ends it or the link is cut.
func (l *Link) serve(ctx context.Context, in net.Conn) {
	defer in.Close()
	if !l.shape.waitThawed(ctx) {
		return
	}
	var dialer net.Dialer
	out, err := dialer.DialContext(ctx, "tcp", l.target)
	if err != nil {
		return
	}
	defer out.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var copies sync.WaitGroup
	for way, ends := range [2][2]net.Conn{{in, out}, {out, in}} {
		q := newQueue()
		copies.Go(func() { l.receive(ctx, way, ends[0], q) })
		copies.Go(func() {
			defer cancel()
			l.deliver(ctx, q, ends[1])
		})
	}
	<-ctx.Done()
	in.Close()
	out.Close()
	copies.Wait()
}

// receive reads one direction, at most as fast as the limit allows. The end of a connection is
// passed on like data. A frozen link makes one read at most, so that the sender notices.
func (l *Link) receive(ctx context.Context, way int, from net.Conn, q *queue) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			part := rest[:min(len(rest), l.shape.portion())]
			rest = rest[len(part):]
			if !l.shape.transmit(ctx, way, len(part)) || !q.put(ctx, part) {
				return
			}
		}
		if err != nil {
			q.put(ctx, nil)
			return
		}
		if !l.shape.waitThawed(ctx) {
			return
		}
	}
}

// deliver writes the data that are due in one direction.
func (l *Link) deliver(ctx context.Context, q *queue, to net.Conn) {
	for {
		c, ok := q.take(ctx)
		if !ok || !l.shape.waitDue(ctx, c.since) || len(c.data) == 0 {
			return
		}
		if _, err := to.Write(c.data); err != nil {
			return
		}
	}
}
