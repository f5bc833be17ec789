// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func tryPut(t *testing.T, client *clientv3.Client, key string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := client.Put(ctx, key, "")
	return err
}

func TestAuth(t *testing.T) {
	for name, flags := range map[string][]string{
		"simple": SimpleTokens(5 * time.Minute),
		"jwt":    JWT(t, 5*time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			c := New(t, Options{Flags: flags})
			auth := c.EnableAuth(t)
			auth.AddUser("reader", "pass 1", Read("svc/"))
			auth.AddUser("writer", "pass 2", ReadWrite("svc/"), Write("log/"))
			reader, writer := auth.Client(t, "reader"), auth.Client(t, "writer")

			put(t, writer, "svc/a", "v")
			put(t, writer, "log/a", "v")
			wantValue(t, reader, "svc/a", "v")
			if got := strings.TrimSpace(c.Etcdctl(t, "get", "log/a", "--print-value-only")); got != "v" {
				t.Errorf("etcdctl get: %q, want %q", got, "v")
			}
			if err := tryPut(t, reader, "svc/a"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
				t.Errorf("put by the reader: %v, want %v", err, rpctypes.ErrPermissionDenied)
			}
			if err := tryPut(t, c.Client(t), "svc/a"); !errors.Is(err, rpctypes.ErrUserEmpty) {
				t.Errorf("put by nobody: %v, want %v", err, rpctypes.ErrUserEmpty)
			}
			auth.Revoke("writer", "svc/")
			if err := tryPut(t, writer, "svc/a"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
				t.Errorf("put after Revoke: %v, want %v", err, rpctypes.ErrPermissionDenied)
			}
			auth.Grant("writer", ReadWrite("svc/"))
			put(t, writer, "svc/a", "v")

			m := c.Leader()
			m.Kill()
			m.Start()
			c.WaitReady()
			wantValue(t, reader, "svc/a", "v")
		})
	}
}

// A token that has ended is no good, whichever kind it is of.
func TestTokensEnd(t *testing.T) {
	const ttl = 2 * time.Second
	for name, flags := range map[string][]string{"simple": SimpleTokens(ttl), "jwt": JWT(t, ttl)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := New(t, Options{Flags: flags})
			auth := c.EnableAuth(t)
			resp, err := auth.Client(t, rootUser).Authenticate(t.Context(), rootUser, auth.passwords[rootUser])
			if err != nil {
				t.Fatal(err)
			}
			client := c.Client(t, func(cfg *clientv3.Config) { cfg.Token = resp.Token })
			put(t, client, "k", "v")
			time.Sleep(ttl + 2*time.Second) // etcd looks every second
			if err := tryPut(t, client, "k"); !errors.Is(err, rpctypes.ErrInvalidAuthToken) {
				t.Errorf("put after the token's end: %v, want %v", err, rpctypes.ErrInvalidAuthToken)
			}
		})
	}
}
