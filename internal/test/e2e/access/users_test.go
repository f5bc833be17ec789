// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// clientAs returns a client of a user with Rollcall's defaults.
func clientAs(t *testing.T, auth *etcdtest.Auth, user string, endpoints ...string) *clientv3.Client {
	t.Helper()
	cfg := rollcall.ClientConfig(endpoints...)
	auth.As(user)(&cfg)
	return lab.ClientOf(t, cfg)
}

// register keeps svc/<id> registered until the test ends.
func register(t *testing.T, client *clientv3.Client, id string) *rollcall.Registration {
	t.Helper()
	r, err := rollcall.NewRegistrar(lab.Directory(t, client), rollcall.RegistrarOptions{TTL: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Shutdown(lab.CleanupContext(t)) })
	g, err := r.Register("svc", rollcall.Endpoint{ID: id, Addr: lab.AddrOf(id)})
	if err == nil {
		err = g.Wait(lab.Context(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestA1TokenExpires(t *testing.T) {
	for name, flags := range map[string][]string{
		"simple": etcdtest.SimpleTokens(2 * time.Second),
		"JWT":    etcdtest.JWT(t, 2*time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etcd := etcdtest.New(t, etcdtest.Options{Flags: flags})
			auth := etcd.EnableAuth(t)
			auth.AddUser("reader", "r", etcdtest.Read("svc/"))
			auth.AddUser("server", "s", etcdtest.ReadWrite("svc/"))
			root := auth.Client(t, "root")
			link := etcdtest.NewLink(t, etcd.Endpoints()[0])
			lab.Put(t, root, "svc", "a", nil)
			f := lab.Follow(t, clientAs(t, auth, "reader", link.Addr()), "svc")
			g := register(t, clientAs(t, auth, "server", link.Addr()), "b")
			f.Holds("a", "b")

			time.Sleep(7 * time.Second) // the tokens, unused, are three times too old
			seen := f.Count()
			lab.Put(t, root, "svc", "c", nil)
			began := time.Now()
			f.Holds("a", "b", "c")
			lab.Within(t, "a running watch", began, time.Second)
			for _, snap := range f.Since(0)[:seen] {
				if snap.Staleness() != nil {
					t.Errorf("marked stale while only a token expired: %v", snap.Staleness().Cause)
				}
			}
			link.Cut()
			f.GoesStale()
			link.Mend()
			mended := time.Now()
			lab.Put(t, root, "svc", "d", nil)
			f.Holds("a", "b", "c", "d")
			lab.Within(t, "at re-connection", mended, 2*time.Second)
			if err := g.Wait(lab.Context(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestA2EtcdDownAtStart(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	auth := etcd.EnableAuth(t)
	auth.AddUser("server", "s", etcdtest.ReadWrite("svc/"))
	lab.Put(t, auth.Client(t, "root"), "svc", "a", nil)
	etcd.Member(0).Stop()

	began := time.Now()
	client := clientAs(t, auth, "server", etcd.Endpoints()...)
	f := lab.Follow(t, client, "svc")
	r, err := rollcall.NewRegistrar(lab.Directory(t, client), rollcall.RegistrarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Shutdown(lab.CleanupContext(t)) })
	g, err := r.Register("svc", rollcall.Endpoint{ID: "b", Addr: lab.AddrOf("b")})
	if err != nil {
		t.Fatal(err)
	}
	lab.Within(t, "client, subscription and registration are made", began, 100*time.Millisecond)
	f.Fails("connection refused")
	etcd.Member(0).Start()
	etcd.WaitReady()
	ready := time.Now()
	f.Holds("a", "b")
	lab.Within(t, "follows and is registered once etcd is ready", ready, 5*time.Second)
	if err := g.Wait(lab.Context(t)); err != nil {
		t.Error(err)
	}
}

// binary builds the command.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rollcall")
	cmd := exec.CommandContext(lab.Context(t), "go", "build", "-o", path, "../../../../cmd/rollcall")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// The roles that the command prints, and those that it applies, let a client do its work
// and nothing else.
func TestA4LeastPrivilege(t *testing.T) {
	t.Parallel()
	rollcallPath := binary(t)
	for _, way := range []string{"printed", "applied"} {
		t.Run(way, func(t *testing.T) {
			etcd := etcdtest.New(t, etcdtest.Options{})
			auth := etcd.EnableAuth(t)
			root := auth.Client(t, "root")
			for _, user := range []string{"registrar", "resolver", "bridge"} {
				auth.AddUser(user, "pw")
				args := []string{"roles", user, "svc", "--grant-to", user, "--name", "rollcall-" + user}
				if user == "bridge" {
					args = append(args[:2:2], args[3:]...) // the whole store
				}
				if way == "applied" {
					args = append(args, "--apply")
				}
				runRoles(t, etcd, auth, rollcallPath, args)
			}
			lab.Put(t, root, "svc", "a", nil)
			lab.Put(t, root, "other", "x", nil)

			g := register(t, clientAs(t, auth, "registrar", etcd.Endpoints()...), "b")
			resolver := clientAs(t, auth, "resolver", etcd.Endpoints()...)
			f := lab.Follow(t, resolver, "svc")
			f.Holds("a", "b")
			all := lab.FollowPrefix(t, clientAs(t, auth, "bridge", etcd.Endpoints()...), "")
			all.Holds("other/x", "svc/a", "svc/b")
			if err := g.Drain(lab.Context(t)); err != nil {
				t.Error(err)
			}
			if err := g.Shutdown(lab.Context(t)); err != nil {
				t.Error(err)
			}
			f.Holds("a")

			ctx := lab.Context(t)
			registrar := clientAs(t, auth, "registrar", etcd.Endpoints()...)
			bridge := clientAs(t, auth, "bridge", etcd.Endpoints()...)
			for what, try := range map[string]func() error{
				"a registrar writes another service":   func() error { _, err := registrar.Put(ctx, "other/x", "y"); return err },
				"a registrar reads another service":    func() error { _, err := registrar.Get(ctx, "other/x"); return err },
				"a resolver writes":                    func() error { _, err := resolver.Put(ctx, "svc/a", "y"); return err },
				"a resolver deletes":                   func() error { _, err := resolver.Delete(ctx, "svc/a"); return err },
				"a resolver reads another service":     func() error { _, err := resolver.Get(ctx, "other/x"); return err },
				"a resolver reads a name like its own": func() error { _, err := resolver.Get(ctx, "svc-2/a"); return err },
				"a resolver reads another's config":    func() error { _, err := resolver.Get(ctx, "_grpc_config/other"); return err },
				"a bridge writes":                      func() error { _, err := bridge.Put(ctx, "svc/a", "y"); return err },
			} {
				if err := try(); !errors.Is(err, rpctypes.ErrPermissionDenied) {
					t.Errorf("%s: got %v, want permission denied", what, err)
				}
			}
			if _, err := resolver.Get(ctx, "_grpc_config/svc"); err != nil {
				t.Errorf("a resolver reads its config: %v", err)
			}
		})
	}
}

// runRoles makes a role as an operator would: by what the command prints, or by itself.
func runRoles(t *testing.T, etcd *etcdtest.Cluster, auth *etcdtest.Auth, path string, args []string) {
	t.Helper()
	var cfg clientv3.Config
	auth.As("root")(&cfg)
	others := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "ROLLCALL_") }) // the tests' own
	env := append(others, "ROLLCALL_ENDPOINTS="+etcd.Endpoints()[0], "ETCDCTL_ENDPOINTS="+etcd.Endpoints()[0],
		"ETCDCTL_USER="+cfg.Username+":"+cfg.Password, "ROLLCALL_DIAL_TIMEOUT=20s",
		"PATH="+filepath.Dir(etcdtest.Binary(t, "etcdctl"))+string(os.PathListSeparator)+os.Getenv("PATH"))
	run := func(name string, args ...string) string {
		cmd := exec.CommandContext(lab.Context(t), name, args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	if out := run(path, args...); !strings.Contains(strings.Join(args, " "), "--apply") {
		run("bash", "-euc", out)
	}
}
