// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	etcdnaming "github.com/rollcall-grpc/rollcall/resolver"
)

// These tests are the snippets of etcd's document "gRPC naming and discovery", section
// by section, as they compile against the API: with Rollcall's imports, and addresses
// of real servers where the document calls them.

func documentClient(t *testing.T, etcd *etcdtest.Cluster) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.NewFromURL(etcd.Member(0).URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	return cli
}

func documentEnv(t *testing.T, etcd *etcdtest.Cluster, target string) *lab.Env {
	return &lab.Env{T: t, Ctx: lab.Context(t), Naming: lab.Rollcall, Etcd: etcd, Client: documentClient(t, etcd), Target: target}
}

func TestDocumentUsingDiscovery(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	e := documentEnv(t, etcd, "my-service")
	e.Serve("one")
	r, err := etcdnaming.NewBuilder(e.Client)
	e.OK(err)

	t.Run("Dial", func(t *testing.T) {
		//lint:ignore SA1019 as in the document
		conn, gerr := grpc.Dial("etcd:///my-service", grpc.WithResolvers(r), grpc.WithBlock(),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		e.OK(gerr)
		defer conn.Close()
		e.Reaches(conn, "one")
	})
	t.Run("NewClient", func(t *testing.T) {
		conn, gerr := grpc.NewClient("etcd:///my-service", grpc.WithResolvers(r),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		e.OK(gerr)
		defer conn.Close()
		e.Reaches(conn, "one")
	})
	t.Run("BareTarget", func(t *testing.T) { runBareTarget(t, etcd) })
}

// The document dials "my-service". For gRPC that names no scheme, so the program must
// have made etcd the default one, which is for a whole process: here a child.
const bareTargetEnv = "ROLLCALL_TEST_BARE_TARGET_ETCD"

func runBareTarget(t *testing.T, etcd *etcdtest.Cluster) {
	child := exec.CommandContext(lab.Context(t), os.Args[0], "-test.run=^TestDocumentBareTargetChild$", "-test.v")
	child.Env = append(os.Environ(), bareTargetEnv+"="+etcd.Member(0).URL())
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "answered: one one") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestDocumentBareTargetChild is the child; by itself it has nothing to do.
func TestDocumentBareTargetChild(t *testing.T) {
	url := os.Getenv(bareTargetEnv)
	if url == "" {
		return
	}
	cli, err := clientv3.NewFromURL(url)
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	r, err := etcdnaming.NewBuilder(cli)
	if err != nil {
		t.Fatal(err)
	}
	grpcresolver.Register(r)
	grpcresolver.SetDefaultScheme("etcd")
	ctx := lab.Context(t)
	answered := "answered:"
	for _, dial := range []func() (*grpc.ClientConn, error){
		func() (*grpc.ClientConn, error) {
			//lint:ignore SA1019 as in the document
			return grpc.Dial("my-service", grpc.WithResolvers(r), grpc.WithBlock(),
				grpc.WithTransportCredentials(insecure.NewCredentials()))
		},
		func() (*grpc.ClientConn, error) {
			return grpc.NewClient("my-service", grpc.WithTransportCredentials(insecure.NewCredentials()))
		},
	} {
		conn, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		name, err := lab.CallNamed(ctx, conn)
		if err != nil {
			t.Fatal(err)
		}
		answered += " " + name
	}
	t.Log(answered)
}

func TestDocumentManagingEndpoints(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	client := documentClient(t, etcd)
	e := &lab.Env{T: t, Ctx: lab.Context(t), Naming: lab.Rollcall, Etcd: etcd, Client: client, Target: "foo/bar/my-service"}

	// Adding an endpoint.
	etcd.Etcdctl(t, "put", "foo/bar/my-service/1.2.3.4", `{"Addr":"1.2.3.4","Metadata":"..."}`)
	em, err := endpoints.NewManager(client, "foo/bar/my-service")
	e.OK(err)
	e.OK(em.AddEndpoint(context.TODO(), "foo/bar/my-service/e1", endpoints.Endpoint{Addr: "1.2.3.4"}))
	listed, err := em.List(e.Ctx)
	e.OK(err)
	e.Same("list", listed, endpoints.Key2EndpointMap{
		"foo/bar/my-service/1.2.3.4": {Addr: "1.2.3.4", Metadata: "..."},
		"foo/bar/my-service/e1":      {Addr: "1.2.3.4"},
	})

	// Dialling "etcd:///foo" with round_robin, which sees foo/bar/my-service/... .
	one, two := lab.StartServer(t, "one"), lab.StartServer(t, "two")
	etcd.Etcdctl(t, "put", "foo/bar/my-service/"+one.Addr, fmt.Sprintf(`{"Addr":%q,"Metadata":"..."}`, one.Addr))
	e.OK(em.AddEndpoint(context.TODO(), "foo/bar/my-service/e2", endpoints.Endpoint{Addr: two.Addr}))
	etcdResolver, err := etcdnaming.NewBuilder(client)
	e.OK(err)
	//lint:ignore SA1019 as in the document
	conn, gerr := grpc.Dial("etcd:///foo", grpc.WithResolvers(etcdResolver),
		grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy":"round_robin"}`),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	e.OK(gerr)
	defer conn.Close()
	e.Reaches(conn, "one", "two")

	// Deleting an endpoint.
	etcd.Etcdctl(t, "del", "foo/bar/my-service/1.2.3.4")
	etcd.Etcdctl(t, "del", "foo/bar/my-service/"+one.Addr)
	e.OK(em.DeleteEndpoint(context.TODO(), "foo/bar/my-service/e1"))
	e.Reaches(conn, "two")
	e.Same("list", e.Listed(em), map[string]string{"foo/bar/my-service/e2": two.Addr})
}

func TestDocumentLeases(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	const ttl = 2
	t.Run("etcdctl", func(t *testing.T) {
		e := documentEnv(t, etcd, "my-service")
		one, two := lab.StartServer(t, "one"), lab.StartServer(t, "two")
		e.Add(e.Manager(), "my-service/one", one.Addr)
		lease := strings.Fields(etcd.Etcdctl(t, "lease", "grant", fmt.Sprint(ttl)))[1] // cut -f2 -d' '
		etcd.Etcdctl(t, "put", "--lease="+lease, "my-service/"+two.Addr, fmt.Sprintf(`{"Addr":%q,"Metadata":"..."}`, two.Addr))
		ctx, hostDies := context.WithCancel(e.Ctx)
		keepAlive := exec.CommandContext(ctx, etcdtest.Binary(t, "etcdctl"), "--endpoints="+etcd.Member(0).Addr(), "lease", "keep-alive", lease)
		e.OK(keepAlive.Start())
		defer func() {
			hostDies()
			_ = keepAlive.Wait()
		}()
		conn := e.Dial("etcd:///my-service")
		e.Reaches(conn, "one", "two")
		time.Sleep(2 * ttl * time.Second) // longer than the lease lives by itself
		e.Reaches(conn, "one", "two")
		hostDies()
		e.Lists(e.Manager(), map[string]string{"my-service/one": one.Addr})
		e.Reaches(conn, "one")
	})
	t.Run("Go", func(t *testing.T) {
		e := documentEnv(t, etcd, "foo/bar/my-service")
		client, one, two := e.Client, lab.StartServer(t, "one"), lab.StartServer(t, "two")
		lease, _ := client.Grant(context.TODO(), ttl)
		em, err := endpoints.NewManager(client, "foo/bar/my-service")
		e.OK(err)
		e.OK(em.AddEndpoint(context.TODO(), "foo/bar/my-service/e1", endpoints.Endpoint{Addr: one.Addr}, clientv3.WithLease(lease.ID)))
		e.Add(em, "foo/bar/my-service/e2", two.Addr)
		conn := e.Dial("etcd:///foo/bar/my-service")
		_, err = e.Call(conn)
		e.OK(err)
		e.Lists(em, map[string]string{"foo/bar/my-service/e2": two.Addr})
		e.Reaches(conn, "two")
	})
}

func TestDocumentAtomicUpdate(t *testing.T) {
	t.Parallel()
	c := documentClient(t, lab.Start(t, etcdtest.Options{}))
	e := &lab.Env{T: t, Ctx: lab.Context(t), Naming: lab.Rollcall, Client: c, Target: "foo"}
	em, err := endpoints.NewManager(c, "foo")
	e.OK(err)
	e.Add(em, "foo/bar/my-service/e1", "1.2.3.4")
	e.Add(em, "foo/bar/my-service/e2", "1.2.3.5")
	w := e.Watch(em)
	w.Next()

	// As the document has it: one key, deleted and added.
	e.OK(em.Update(context.TODO(), []*endpoints.UpdateWithOpts{
		endpoints.NewDeleteUpdateOpts("foo/bar/my-service/e1"),
		endpoints.NewAddUpdateOpts("foo/bar/my-service/e1", endpoints.Endpoint{Addr: "1.2.3.14"}),
	}))
	w.Becomes(map[string]string{"foo/bar/my-service/e1": "1.2.3.14", "foo/bar/my-service/e2": "1.2.3.5"})

	// As it is meant: one endpoint in the place of another, with nothing in between.
	e.OK(em.Update(context.TODO(), []*endpoints.UpdateWithOpts{
		endpoints.NewDeleteUpdateOpts("foo/bar/my-service/e1"),
		endpoints.NewAddUpdateOpts("foo/bar/my-service/e3", endpoints.Endpoint{Addr: "1.2.3.24"}),
	}))
	if n := len(w.Next()); n != 2 {
		t.Errorf("%d updates in the message, want both", n)
	}
	want := map[string]string{"foo/bar/my-service/e2": "1.2.3.5", "foo/bar/my-service/e3": "1.2.3.24"}
	e.Same("watch", w.Set, want)
	e.Same("list", e.Listed(em), want)
}
