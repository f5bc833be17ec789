// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"bytes"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// secureClient is one with TLS from files and Rollcall's defaults.
func secureClient(t *testing.T, files rollcall.TLSFiles, endpoint string) *clientv3.Client {
	t.Helper()
	creds, err := files.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	cfg := rollcall.ClientConfig(endpoint)
	cfg.DialOptions = append(cfg.DialOptions, grpc.WithTransportCredentials(creds))
	return lab.ClientOf(t, cfg)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestA3CertificatesRotate(t *testing.T) {
	t.Parallel()
	ca := etcdtest.NewCA(t)
	etcd := etcdtest.New(t, etcdtest.Options{TLS: ca})
	direct := etcd.Client(t)
	link := etcdtest.NewLink(t, etcd.Endpoints()[0])
	mine := ca.Issue("client", 4*time.Second)
	trusted := t.TempDir() + "/ca.pem"
	copyFile(t, ca.File(), trusted)
	client := secureClient(t, rollcall.TLSFiles{CA: trusted, Cert: mine.CertFile, Key: mine.KeyFile}, "https://"+link.Addr())
	lab.Put(t, direct, "svc", "a", nil)
	f := lab.Follow(t, client, "svc")
	f.Holds("a")

	// reconnect cuts the link and mends it after the change.
	reconnect := func(change func()) time.Time {
		link.Cut()
		f.GoesStale()
		change()
		link.Mend()
		return time.Now()
	}
	staleFor := func(cause string) {
		t.Helper()
		f.Until("stale for "+cause, func(seen []*rollcall.Snapshot) bool {
			stale := seen[len(seen)-1].Staleness()
			return stale != nil && strings.Contains(stale.Cause.Error(), cause)
		})
	}
	time.Sleep(5 * time.Second)
	lab.Put(t, direct, "svc", "b", nil)
	f.Holds("a", "b") // what is connected stays so
	reconnect(func() {})
	staleFor("expired certificate")
	ca.Reissue(mine, time.Hour)
	renewed := time.Now()
	f.Holds("a", "b")
	lab.Within(t, "live after the client's certificate was renewed", renewed, 5*time.Second)

	// The server's certificate has expired, then it is signed by another authority.
	reconnect(func() { ca.Reissue(etcd.Member(0).Certificate(), -time.Hour) })
	staleFor("certificate has expired")
	other := etcdtest.NewCA(t)
	other.Reissue(etcd.Member(0).Certificate(), time.Hour)
	staleFor("unknown authority")
	copyFile(t, other.File(), trusted)
	renewed = time.Now()
	f.Holds("a", "b")
	lab.Within(t, "live after the authority was replaced", renewed, 5*time.Second)

	// In the middle of a rotation, what was last read holds.
	reconnect(func() {
		if err := os.WriteFile(trusted, []byte("half a fi"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	f.Holds("a", "b")
}

// With TLS files nothing is ever sent in plain text, whatever an endpoint's scheme says.
func TestA3NeverInPlainText(t *testing.T) {
	t.Parallel()
	ca := etcdtest.NewCA(t)
	for _, scheme := range []string{"", "http://", "https://"} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		first := make(chan byte, 1)
		go func() {
			defer ln.Close()
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			b := make([]byte, 1)
			if _, err := conn.Read(b); err == nil {
				first <- b[0]
			}
		}()
		lab.Follow(t, secureClient(t, rollcall.TLSFiles{CA: ca.File()}, scheme+ln.Addr().String()), "svc")
		select {
		case b := <-first:
			if b != 0x16 { // a TLS record of a handshake
				t.Errorf("%q: the first byte is %#x", scheme, b)
			}
		case <-time.After(lab.WaitMost):
			t.Errorf("%q: nothing was sent", scheme)
		}
	}
}

// A bundle that is read while it is being written replaces nothing: what was last read
// whole holds, with every authority in it.
func TestTruncatedBundle(t *testing.T) {
	t.Parallel()
	first, second := etcdtest.NewCA(t), etcdtest.NewCA(t)
	var whole []byte
	for _, ca := range []*etcdtest.CA{first, second} {
		data, err := os.ReadFile(ca.File())
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, data...)
	}
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	write := func(data []byte) {
		if err := os.WriteFile(bundle, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(whole)
	creds, err := rollcall.TLSFiles{CA: bundle}.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	issued := second.Issue("server", time.Hour, "127.0.0.1")
	cert, err := tls.LoadX509KeyPair(issued.CertFile, issued.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	handshake := func() error {
		client, server := net.Pipe()
		defer client.Close()
		go func() {
			defer server.Close()
			_ = tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}).Handshake()
		}()
		_, _, err := creds.ClientHandshake(lab.Context(t), "127.0.0.1:1", client)
		return err
	}
	for name, data := range map[string][]byte{
		"whole":                           whole,
		"cut off in the second":           whole[:len(whole)-100],
		"cut off in the first line of it": whole[:len(whole)/2+10],
		"the first cut off":               append(bytes.Clone(whole[:len(whole)/4]), whole[len(whole)/2:]...),
		"empty":                           nil,
		"of no certificate":               []byte("x"),
	} {
		write(data)
		if err := handshake(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := (rollcall.TLSFiles{CA: bundle}).Credentials(); (err == nil) != (name == "whole") {
			t.Errorf("%s: at the start got %v", name, err)
		}
	}
}
