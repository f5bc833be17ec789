// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/etcdtest"
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
			stale := seen[len(seen)-1].Stale()
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
