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

// Auth is the users of a cluster that asks who a client is.
type Auth struct {
	tb        testing.TB
	cluster   *Cluster
	client    *clientv3.Client // root's
	passwords map[string]string
}

// Permission is a right on all keys that begin with Prefix.
type Permission struct {
	Prefix string
	Kind   clientv3.PermissionType
}

// Read is the right to read what begins with prefix.
func Read(prefix string) Permission {
	return Permission{prefix, clientv3.PermissionType(clientv3.PermRead)}
}

// Write is the right to write, and not read, what begins with prefix.
func Write(prefix string) Permission {
	return Permission{prefix, clientv3.PermissionType(clientv3.PermWrite)}
}

// ReadWrite is Read and Write.
func ReadWrite(prefix string) Permission {
	return Permission{prefix, clientv3.PermissionType(clientv3.PermReadWrite)}
}

// SimpleTokens returns the flags of a cluster whose tokens, which one member knows and no
// other, end when they have not been used for ttl, in whole seconds.
func SimpleTokens(ttl time.Duration) []string {
	return []string{"--auth-token=simple", fmt.Sprintf("--auth-token-ttl=%d", int(ttl.Seconds()))}
}

// JWT returns the flags of a cluster whose tokens are signed and end after ttl, used or not.
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

// EnableAuth makes the user root and has the cluster ask every client who it is. From now
// on the cluster's own calls, Etcdctl among them, are root's; those of Client are nobody's.
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

// AddUser makes a user, and a role of the same name that has the permissions.
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

// Grant adds to what a user may do.
func (a *Auth) Grant(name string, permissions ...Permission) {
	a.tb.Helper()
	for _, p := range permissions {
		a.must("grant to "+name, func(ctx context.Context) error {
			_, err := a.client.RoleGrantPermission(ctx, name, p.Prefix, clientv3.GetPrefixRangeEnd(p.Prefix), p.Kind)
			return err
		})
	}
}

// Revoke takes back what AddUser or Grant gave, by its prefix.
func (a *Auth) Revoke(name, prefix string) {
	a.tb.Helper()
	a.must("revoke from "+name, func(ctx context.Context) error {
		_, err := a.client.RoleRevokePermission(ctx, name, prefix, clientv3.GetPrefixRangeEnd(prefix))
		return err
	})
}

// Client returns a client of a user that AddUser made, or of "root".
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
