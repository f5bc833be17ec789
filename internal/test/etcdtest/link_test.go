// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// echo is a server that sends back what it gets.
func echo(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// conn is a connection to an echo server.
type conn struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, addr string) conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return conn{c, bufio.NewReader(c)}
}

// read returns the next line, or the error after wait.
func (c conn) read(wait time.Duration) (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return "", err
	}
	return c.in.ReadString('\n')
}

func (c conn) wantEcho(t *testing.T, line string) {
	t.Helper()
	if got, err := c.read(5 * time.Second); err != nil || got != line {
		t.Errorf("read: got %.60q, %v; want %.60q", got, err, line)
	}
}

func (c conn) wantSilence(t *testing.T) {
	t.Helper()
	if got, err := c.read(200 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read on a frozen or slow link: got %.60q, %v; want silence", got, err)
	}
}

func (c conn) send(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(c, line); err != nil {
		t.Errorf("send: %v", err)
	}
}

func TestLinkCut(t *testing.T) {
	l := NewLink(t, "http://"+echo(t))
	for range 3 {
		c := dial(t, l.Addr())
		c.send(t, "a\n")
		c.wantEcho(t, "a\n")
		l.Cut()
		l.Cut()
		if got, err := c.read(5 * time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read on a cut link: got %q, %v; want its end", got, err)
		}
		if c, err := net.Dial("tcp", l.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				c.Close()
			}
			t.Errorf("dial on a cut link: %v, want %v", err, syscall.ECONNREFUSED)
		}
		l.Mend()
		l.Mend()
	}
}

func TestLinkFreeze(t *testing.T) {
	l := NewLink(t, echo(t))
	before := dial(t, l.Addr())
	before.send(t, "1\n")
	before.wantEcho(t, "1\n")

	l.Freeze()
	l.Freeze()
	during := dial(t, l.Addr())
	for _, c := range []conn{before, during} {
		c.send(t, "2\n")
		c.wantSilence(t)
	}
	l.Mend()
	for _, c := range []conn{before, during} {
		c.wantEcho(t, "2\n")
		c.send(t, "3\n")
		c.wantEcho(t, "3\n")
	}
}

func TestLinkCutWhileFrozen(t *testing.T) {
	l := NewLink(t, echo(t))
	c := dial(t, l.Addr())
	c.send(t, "1\n")
	c.wantEcho(t, "1\n")
	l.Freeze()
	c.send(t, "2\n")
	l.Cut()
	l.Freeze() // a cut link stays cut
	if got, err := c.read(5 * time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read on a cut link: got %q, %v; want its end", got, err)
	}
	l.Mend()
	c = dial(t, l.Addr())
	c.send(t, "3\n")
	c.wantEcho(t, "3\n")
}

func TestLinkIsFrozenAtTheEnd(t *testing.T) {
	l := NewLink(t, echo(t))
	c := dial(t, l.Addr())
	c.send(t, "1\n")
	c.wantEcho(t, "1\n")
	l.Freeze()
	dial(t, l.Addr()).send(t, "2\n")
} // goleak sees what Cleanup forgets

func TestLinkInFrontOfEtcd(t *testing.T) {
	c := New(t, Options{})
	l := NewLink(t, c.Member(0).URL())
	client := c.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = []string{l.Addr()} })
	put(t, client, "k", "v")
	for range 3 {
		l.Cut()
		l.Mend()
		wantValue(t, client, "k", "v")
		l.Freeze()
		l.Mend()
		wantValue(t, client, "k", "v")
	}
}
