// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// roundTrip tells how long a line takes to the echo server and back.
func roundTrip(t *testing.T, c conn, line string) time.Duration {
	t.Helper()
	start := time.Now()
	c.send(t, line)
	c.wantEcho(t, line)
	return time.Since(start)
}

func TestLinkDelay(t *testing.T) {
	const delay = 300 * time.Millisecond
	l := NewLink(t, echo(t))
	c := dial(t, l.Addr())
	l.Delay(delay)
	if took := roundTrip(t, c, "a\n"); took < 2*delay {
		t.Errorf("there and back took %v, want at least %v", took, 2*delay)
	}
	// Many lines take no longer than one, and arrive in order.
	const lines = 200
	start := time.Now()
	for i := range lines {
		c.send(t, fmt.Sprintf("%d\n", i))
		time.Sleep(time.Millisecond) // for chunks of their own
	}
	for i := range lines {
		c.wantEcho(t, fmt.Sprintf("%d\n", i))
	}
	if took := time.Since(start); took > lines*delay/10 {
		t.Errorf("%d lines took %v with a delay of %v", lines, took, delay)
	}
	for _, undo := range []func(){func() { l.Delay(0) }, l.Mend} {
		l.Delay(time.Hour)
		c.send(t, "sent before\n")
		c.wantSilence(t)
		undo()
		c.wantEcho(t, "sent before\n")
		roundTrip(t, c, "sent after\n")
	}
}

// The end of a connection is no faster than what was sent before it.
func TestLinkDelaysTheEnd(t *testing.T) {
	const delay = 300 * time.Millisecond
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer ln.Close()
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "bye\n")
		c.Close()
	})
	defer wg.Wait()
	l := NewLink(t, ln.Addr().String())
	l.Delay(delay)
	start := time.Now()
	c := dial(t, l.Addr())
	c.wantEcho(t, "bye\n")
	if _, err := c.read(5 * time.Second); err != io.EOF {
		t.Errorf("read: %v, want %v", err, io.EOF)
	}
	if took := time.Since(start); took < delay {
		t.Errorf("the end came after %v, want at least %v", took, delay)
	}
}

func TestLinkLimit(t *testing.T) {
	const rate, size = 100_000, 50_000
	l := NewLink(t, echo(t))
	c := dial(t, l.Addr())
	line := strings.Repeat("0123456789", size/10) + "\n"
	l.Limit(rate)
	const want = size * time.Second / rate
	if took := roundTrip(t, c, line); took < want {
		t.Errorf("%d bytes at %d a second took %v, want at least %v", size, rate, took, want)
	}
	for _, undo := range []func(){func() { l.Limit(0) }, l.Mend} {
		l.Limit(1)
		c.send(t, line)
		c.wantSilence(t)
		undo()
		c.wantEcho(t, line)
	}
}

func TestLinkIsSlowAtTheEnd(t *testing.T) {
	l := NewLink(t, echo(t))
	l.Delay(time.Hour)
	dial(t, l.Addr()).send(t, "1\n")
	l.Limit(1)
	dial(t, l.Addr()).send(t, "0123456789\n")
} // goleak sees what Cleanup forgets

func TestSlowLinkInFrontOfEtcd(t *testing.T) {
	const delay = 100 * time.Millisecond
	c := New(t, Options{})
	l := NewLink(t, c.Member(0).URL())
	l.Delay(delay)
	client := c.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = []string{l.Addr()} })
	put(t, client, "k", "v")
	start := time.Now()
	wantValue(t, client, "k", "v")
	if took := time.Since(start); took < 2*delay {
		t.Errorf("a read took %v, want at least %v", took, 2*delay)
	}
}
