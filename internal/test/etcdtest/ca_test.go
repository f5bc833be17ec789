// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// handshake dials m and tells what comes of it, a read included: what the server thinks of
// the client arrives after TLS 1.3's handshake has ended for the client.
func handshake(m *Member, cfg *tls.Config) error {
	conn, err := tls.Dial("tcp", m.Addr(), cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("GET /version HTTP/1.1\r\nHost: etcd\r\n\r\n")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want an error with %q", err, text)
	}
}

func TestTLS(t *testing.T) {
	ca := NewCA(t)
	c := New(t, Options{Members: 3, TLS: ca})
	client, m := c.Client(t), c.Leader()
	put(t, client, "k", "v")
	if got := strings.TrimSpace(c.Etcdctl(t, "get", "k", "--print-value-only")); got != "v" {
		t.Errorf("etcdctl get: %q, want %q", got, "v")
	}
	if !strings.HasPrefix(m.URL(), "https://") {
		t.Errorf("URL() = %s", m.URL())
	}
	link := NewLink(t, m.URL())
	put(t, c.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = []string{link.Addr()} }), "k", "v2")
	m.Kill()
	m.Start()
	c.WaitReady()
	wantValue(t, client, "k", "v2")
}

func TestCertificateIsReissued(t *testing.T) {
	ca, other := NewCA(t), NewCA(t)
	c := New(t, Options{TLS: ca})
	m, own := c.Member(0), ca.Issue("client", aDay)

	ca.Reissue(m.Certificate(), -time.Minute)
	wantError(t, handshake(m, ca.ClientConfig(own)), "expired")
	other.Reissue(m.Certificate(), aDay)
	wantError(t, handshake(m, ca.ClientConfig(own)), "unknown authority")
	ca.Reissue(m.Certificate(), aDay)

	wantError(t, handshake(m, ca.ClientConfig(nil)), "certificate required")
	ca.Reissue(own, -time.Minute)
	wantError(t, handshake(m, ca.ClientConfig(own)), "certificate")
	other.Reissue(own, aDay)
	wantError(t, handshake(m, ca.ClientConfig(own)), "certificate")
	ca.Reissue(own, aDay)
	if err := handshake(m, ca.ClientConfig(own)); err != nil {
		t.Errorf("with good certificates: %v", err)
	}
	put(t, c.Client(t), "k", "v")
}

func TestPlainTextIsRefused(t *testing.T) {
	c := New(t, Options{TLS: NewCA(t)})
	client := c.Client(t, func(cfg *clientv3.Config) { cfg.TLS = nil })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := client.Put(ctx, "k", ""); err == nil {
		t.Error("a member with TLS took plain text")
	}
}

func TestTLSWithUsersAndSnapshots(t *testing.T) {
	c := New(t, Options{TLS: NewCA(t)})
	auth, m := c.EnableAuth(t), c.Member(0)
	root := auth.Client(t, rootUser)
	put(t, root, "k", "saved")
	file := filepath.Join(t.TempDir(), "snapshot")
	m.Save(file)
	put(t, root, "k", "lost")
	m.Stop()
	m.Restore(file)
	m.Start()
	c.WaitReady()
	wantValue(t, auth.Client(t, rootUser), "k", "saved")
}

func TestTLSInNamespaces(t *testing.T) {
	c := NewPartitionable(t, Options{Members: 1, TLS: NewCA(t)})
	put(t, c.Client(t), "k", "v")
	if err := handshake(c.Member(0), NewCA(t).ClientConfig(nil)); err == nil {
		t.Errorf("handshake with another authority: %v, want an error", err)
	}
}
