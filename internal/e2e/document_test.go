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
	"github.com/rollcall-grpc/rollcall/internal/etcdtest"
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

func documentEnv(t *testing.T, etcd *etcdtest.Cluster, target string) *env {
	return &env{t: t, ctx: testContext(t), naming: rollcallNaming, etcd: etcd, client: documentClient(t, etcd), target: target}
}

func TestDocumentUsingDiscovery(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	e := documentEnv(t, etcd, "my-service")
	e.serve("one")
	r, err := etcdnaming.NewBuilder(e.client)
	e.ok(err)

	t.Run("Dial", func(t *testing.T) {
		//lint:ignore SA1019 as in the document
		conn, gerr := grpc.Dial("etcd:///my-service", grpc.WithResolvers(r), grpc.WithBlock(),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		e.ok(gerr)
		defer conn.Close()
		e.reaches(conn, "one")
	})
	t.Run("NewClient", func(t *testing.T) {
		conn, gerr := grpc.NewClient("etcd:///my-service", grpc.WithResolvers(r),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		e.ok(gerr)
		defer conn.Close()
		e.reaches(conn, "one")
	})
	t.Run("BareTarget", func(t *testing.T) { runBareTarget(t, etcd) })
}

// The document dials "my-service". For gRPC that names no scheme, so the program must
// have made etcd the default one, which is for a whole process: here a child.
const bareTargetEnv = "ROLLCALL_TEST_BARE_TARGET_ETCD"

func runBareTarget(t *testing.T, etcd *etcdtest.Cluster) {
	child := exec.CommandContext(testContext(t), os.Args[0], "-test.run=^TestDocumentBareTargetChild$", "-test.v")
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
	ctx := testContext(t)
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
		name, err := callNamed(ctx, conn)
		if err != nil {
			t.Fatal(err)
		}
		answered += " " + name
	}
	t.Log(answered)
}

func TestDocumentManagingEndpoints(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := documentClient(t, etcd)
	e := &env{t: t, ctx: testContext(t), naming: rollcallNaming, etcd: etcd, client: client, target: "foo/bar/my-service"}

	// Adding an endpoint.
	etcd.Etcdctl(t, "put", "foo/bar/my-service/1.2.3.4", `{"Addr":"1.2.3.4","Metadata":"..."}`)
	em, err := endpoints.NewManager(client, "foo/bar/my-service")
	e.ok(err)
	e.ok(em.AddEndpoint(context.TODO(), "foo/bar/my-service/e1", endpoints.Endpoint{Addr: "1.2.3.4"}))
	listed, err := em.List(e.ctx)
	e.ok(err)
	e.same("list", listed, endpoints.Key2EndpointMap{
		"foo/bar/my-service/1.2.3.4": {Addr: "1.2.3.4", Metadata: "..."},
		"foo/bar/my-service/e1":      {Addr: "1.2.3.4"},
	})

	// Dialling "etcd:///foo" with round_robin, which sees foo/bar/my-service/... .
	one, two := startNamedServer(t, "one"), startNamedServer(t, "two")
	etcd.Etcdctl(t, "put", "foo/bar/my-service/"+one.addr, fmt.Sprintf(`{"Addr":%q,"Metadata":"..."}`, one.addr))
	e.ok(em.AddEndpoint(context.TODO(), "foo/bar/my-service/e2", endpoints.Endpoint{Addr: two.addr}))
	etcdResolver, err := etcdnaming.NewBuilder(client)
	e.ok(err)
	//lint:ignore SA1019 as in the document
	conn, gerr := grpc.Dial("etcd:///foo", grpc.WithResolvers(etcdResolver),
		grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy":"round_robin"}`),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	e.ok(gerr)
	defer conn.Close()
	e.reaches(conn, "one", "two")

	// Deleting an endpoint.
	etcd.Etcdctl(t, "del", "foo/bar/my-service/1.2.3.4")
	etcd.Etcdctl(t, "del", "foo/bar/my-service/"+one.addr)
	e.ok(em.DeleteEndpoint(context.TODO(), "foo/bar/my-service/e1"))
	e.reaches(conn, "two")
	e.same("list", e.listed(em), map[string]string{"foo/bar/my-service/e2": two.addr})
}

func TestDocumentLeases(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	const ttl = 2
	t.Run("etcdctl", func(t *testing.T) {
		e := documentEnv(t, etcd, "my-service")
		one, two := startNamedServer(t, "one"), startNamedServer(t, "two")
		e.add(e.manager(), "my-service/one", one.addr)
		lease := strings.Fields(etcd.Etcdctl(t, "lease", "grant", fmt.Sprint(ttl)))[1] // cut -f2 -d' '
		etcd.Etcdctl(t, "put", "--lease="+lease, "my-service/"+two.addr, fmt.Sprintf(`{"Addr":%q,"Metadata":"..."}`, two.addr))
		ctx, hostDies := context.WithCancel(e.ctx)
		keepAlive := exec.CommandContext(ctx, etcdtest.Binary(t, "etcdctl"), "--endpoints="+etcd.Member(0).Addr(), "lease", "keep-alive", lease)
		e.ok(keepAlive.Start())
		defer func() {
			hostDies()
			_ = keepAlive.Wait()
		}()
		conn := e.dial("etcd:///my-service")
		e.reaches(conn, "one", "two")
		time.Sleep(2 * ttl * time.Second) // longer than the lease lives by itself
		e.reaches(conn, "one", "two")
		hostDies()
		e.lists(e.manager(), map[string]string{"my-service/one": one.addr})
		e.reaches(conn, "one")
	})
	t.Run("Go", func(t *testing.T) {
		e := documentEnv(t, etcd, "foo/bar/my-service")
		client, one, two := e.client, startNamedServer(t, "one"), startNamedServer(t, "two")
		lease, _ := client.Grant(context.TODO(), ttl)
		em, err := endpoints.NewManager(client, "foo/bar/my-service")
		e.ok(err)
		e.ok(em.AddEndpoint(context.TODO(), "foo/bar/my-service/e1", endpoints.Endpoint{Addr: one.addr}, clientv3.WithLease(lease.ID)))
		e.add(em, "foo/bar/my-service/e2", two.addr)
		conn := e.dial("etcd:///foo/bar/my-service")
		_, err = e.call(conn)
		e.ok(err)
		e.lists(em, map[string]string{"foo/bar/my-service/e2": two.addr})
		e.reaches(conn, "two")
	})
}

func TestDocumentAtomicUpdate(t *testing.T) {
	c := documentClient(t, etcdtest.New(t, etcdtest.Options{}))
	e := &env{t: t, ctx: testContext(t), naming: rollcallNaming, client: c, target: "foo"}
	em, err := endpoints.NewManager(c, "foo")
	e.ok(err)
	e.add(em, "foo/bar/my-service/e1", "1.2.3.4")
	e.add(em, "foo/bar/my-service/e2", "1.2.3.5")
	w := e.watch(em)
	w.next()

	// As the document has it: one key, deleted and added.
	e.ok(em.Update(context.TODO(), []*endpoints.UpdateWithOpts{
		endpoints.NewDeleteUpdateOpts("foo/bar/my-service/e1"),
		endpoints.NewAddUpdateOpts("foo/bar/my-service/e1", endpoints.Endpoint{Addr: "1.2.3.14"}),
	}))
	w.becomes(map[string]string{"foo/bar/my-service/e1": "1.2.3.14", "foo/bar/my-service/e2": "1.2.3.5"})

	// As it is meant: one endpoint in the place of another, with nothing in between.
	e.ok(em.Update(context.TODO(), []*endpoints.UpdateWithOpts{
		endpoints.NewDeleteUpdateOpts("foo/bar/my-service/e1"),
		endpoints.NewAddUpdateOpts("foo/bar/my-service/e3", endpoints.Endpoint{Addr: "1.2.3.24"}),
	}))
	if n := len(w.next()); n != 2 {
		t.Errorf("%d updates in the message, want both", n)
	}
	want := map[string]string{"foo/bar/my-service/e2": "1.2.3.5", "foo/bar/my-service/e3": "1.2.3.24"}
	e.same("watch", w.set, want)
	e.same("list", e.listed(em), want)
}
