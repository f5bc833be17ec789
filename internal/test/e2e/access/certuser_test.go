// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// A client that has a user and a certificate acts as the user: whom the certificate names counts
// only where there is no user. A wrong password is refused, whatever the certificate.
func TestUserBeforeCertificate(t *testing.T) {
	t.Parallel()
	ca := etcdtest.NewCA(t)
	etcd := etcdtest.New(t, etcdtest.Options{TLS: ca})
	auth := etcd.EnableAuth(t)
	auth.AddUser("reader", "reader", etcdtest.Read("svc/"))
	root := auth.Client(t, "root")
	lab.Put(t, root, "svc", "a", nil)
	as := func(user, password, certificate string) *clientv3.Client {
		cfg := rollcall.ClientConfig(etcd.Endpoints()...)
		cfg.TLS = ca.ClientConfig(ca.Issue(certificate, time.Hour))
		auth.As(user)(&cfg)
		if password != "" {
			cfg.Password = password
		}
		return lab.ClientOf(t, cfg)
	}

	reader := as("reader", "", "root")
	if _, err := reader.Put(lab.Context(t), "other", "x"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("a reader with root's certificate writes: %v", err)
	}
	lab.Follow(t, reader, "svc").Holds("a")

	wrong := as("root", "wrong", "root")
	if _, err := wrong.Put(lab.Context(t), "other", "x"); !errors.Is(err, rpctypes.ErrAuthFailed) {
		t.Errorf("a wrong password with root's certificate: %v", err)
	}

	able := as("root", "", "reader")
	lab.Put(t, able, "svc", "b", nil)
	register(t, able, "c")
	lab.Follow(t, reader, "svc").Holds("a", "b", "c")
}
