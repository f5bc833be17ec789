// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	rootUser    = "root"
	authTimeout = 30 * time.Second
)

// Auth has the users of a cluster with authentication.
type Auth struct {
	tb        testing.TB
	cluster   *Cluster
	client    *clientv3.Client // root's
	passwords map[string]string
}

// Permission is a permission on all keys with a prefix.
type Permission struct {
	Prefix string
	Kind   clientv3.PermissionType
}

// Read permits to read keys with the prefix.
func Read(prefix string) Permission {
	return Permission{prefix, clientv3.PermissionType(clientv3.PermRead)}
}

// Write permits to write, but not to read, keys with the prefix.
func Write(prefix string) Permission {
	return Permission{prefix, clientv3.PermissionType(clientv3.PermWrite)}
}

// ReadWrite is Read and Write.
func ReadWrite(prefix string) Permission {
	return Permission{prefix, clientv3.PermissionType(clientv3.PermReadWrite)}
}

// SimpleTokens returns the flags of a cluster with simple tokens. Only one member knows a token,
// and it expires when it was not used for ttl, in whole seconds.
func SimpleTokens(ttl time.Duration) []string {
	return []string{"--auth-token=simple", fmt.Sprintf("--auth-token-ttl=%d", int(ttl.Seconds()))}
}

// JWT returns the flags of a cluster with signed tokens, which expire after ttl.
func JWT(tb testing.TB, ttl time.Duration) []string {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatalf("etcdtest: JWT key: %v", err)
	}
	dir := tb.TempDir()
	private, public := filepath.Join(dir, "jwt.key"), filepath.Join(dir, "jwt.pub")
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		tb.Fatalf("etcdtest: JWT key: %v", err)
	}
	for path, block := range map[string]*pem.Block{
		private: {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)},
		public:  {Type: "PUBLIC KEY", Bytes: pub},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			tb.Fatalf("etcdtest: JWT key: %v", err)
		}
	}
	return []string{fmt.Sprintf("--auth-token=jwt,pub-key=%s,priv-key=%s,sign-method=RS256,ttl=%v", public, private, ttl)}
}

// EnableAuth creates the user root and turns authentication on. From then on the cluster's own
// calls, such as Etcdctl, are made as root; clients of Cluster.Client have no user.
func (c *Cluster) EnableAuth(tb testing.TB) *Auth {
	tb.Helper()
	a := &Auth{tb: tb, cluster: c, passwords: make(map[string]string)}
	a.client = c.Client(tb)
	a.AddUser(rootUser, "root's password")
	a.must("enable auth", func(ctx context.Context) error {
		_, err := a.client.AuthEnable(ctx)
		return err
	})
	c.root = a
	a.client = a.Client(tb, rootUser)
	return a
}

// AddUser creates a user, and a role of the same name with the permissions.
func (a *Auth) AddUser(name, password string, permissions ...Permission) {
	a.tb.Helper()
	a.must("add "+name, func(ctx context.Context) error {
		if _, err := a.client.RoleAdd(ctx, name); err != nil {
			return err
		}
		if _, err := a.client.UserAdd(ctx, name, password); err != nil {
			return err
		}
		_, err := a.client.UserGrantRole(ctx, name, name)
		return err
	})
	a.passwords[name] = password
	a.Grant(name, permissions...)
}

// Grant adds a permission to the user's role.
func (a *Auth) Grant(name string, permissions ...Permission) {
	a.tb.Helper()
	for _, p := range permissions {
		a.must("grant to "+name, func(ctx context.Context) error {
			_, err := a.client.RoleGrantPermission(ctx, name, p.Prefix, clientv3.GetPrefixRangeEnd(p.Prefix), p.Kind)
			return err
		})
	}
}

// Revoke removes a permission from the user's role, by its prefix.
func (a *Auth) Revoke(name, prefix string) {
	a.tb.Helper()
	a.must("revoke from "+name, func(ctx context.Context) error {
		_, err := a.client.RoleRevokePermission(ctx, name, prefix, clientv3.GetPrefixRangeEnd(prefix))
		return err
	})
}

// Client returns a client of a user that AddUser created, or of "root".
func (a *Auth) Client(tb testing.TB, name string, mutate ...func(*clientv3.Config)) *clientv3.Client {
	tb.Helper()
	return a.cluster.Client(tb, append([]func(*clientv3.Config){a.As(name)}, mutate...)...)
}

// As sets the name and the password of a user in a configuration.
func (a *Auth) As(name string) func(*clientv3.Config) {
	return func(cfg *clientv3.Config) { cfg.Username, cfg.Password = name, a.passwords[name] }
}

func (a *Auth) must(what string, f func(ctx context.Context) error) {
	a.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), authTimeout)
	defer cancel()
	if err := f(ctx); err != nil {
		a.tb.Fatalf("etcdtest: %s: %v", what, err)
	}
}
