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

// Link is a TCP forwarder in front of one address, to take it away and give it back.
type Link struct {
	// Set once.
	tb     testing.TB
	addr   string
	target string

	// Guarded by ops, which Cut, Freeze and Mend hold for as long as they take.
	ops    sync.Mutex
	ln     net.Listener // nil while cut
	cancel func()       // closes every connection; set while ln is
	wg     sync.WaitGroup

	// Guarded by mu, which is taken after ops.
	mu     sync.Mutex
	thawed chan struct{} // closed unless frozen
}

// NewLink returns a link to target, a host:port or an http:// URL. It is closed when the
// test ends.
func NewLink(tb testing.TB, target string) *Link {
	tb.Helper()
	l := &Link{
		tb:     tb,
		addr:   net.JoinHostPort("127.0.0.1", strconv.Itoa(reservePort(tb))),
		target: strings.TrimPrefix(target, "http://"),
		thawed: make(chan struct{}),
	}
	close(l.thawed)
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
	l.thaw()
}

// Freeze stops forwarding in both directions. Connections stay open and new ones can be
// made, but nothing that is sent after Freeze has returned arrives before Mend. A link
// that is cut stays so.
func (l *Link) Freeze() {
	l.ops.Lock()
	defer l.ops.Unlock()
	if l.ln == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.thawed:
		l.thawed = make(chan struct{})
	default:
	}
}

// Mend undoes Cut and Freeze. What was sent while frozen arrives now.
func (l *Link) Mend() {
	l.tb.Helper()
	l.ops.Lock()
	defer l.ops.Unlock()
	l.thaw()
	if l.ln != nil {
		return
	}
	ln, err := net.Listen("tcp", l.addr)
	// The port is reserved, but connections that were just cut may hold on to it.
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

func (l *Link) thaw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.thawed:
	default:
		close(l.thawed)
	}
}

// waitThawed blocks while the link is frozen. It is false when the link is cut.
func (l *Link) waitThawed(ctx context.Context) bool {
	l.mu.Lock()
	thawed := l.thawed
	l.mu.Unlock()
	select {
	case <-thawed:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
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
	if !l.waitThawed(ctx) {
		return
	}
	var dialer net.Dialer
	out, err := dialer.DialContext(ctx, "tcp", l.target)
	if err != nil {
		return
	}
	defer out.Close()
	ended := make(chan struct{}, 2)
	var copies sync.WaitGroup
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		copies.Go(func() {
			l.forward(ctx, way[0], way[1])
			ended <- struct{}{}
		})
	}
	select {
	case <-ended:
	case <-ctx.Done():
	}
	in.Close()
	out.Close()
	copies.Wait()
}

// forward copies one way. The end of a connection waits for the thaw as data does.
func (l *Link) forward(ctx context.Context, from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if !l.waitThawed(ctx) || err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
