// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package guides_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/examples/greeter"
	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/resolver"
	"github.com/rollcall-grpc/rollcall/serving"
)

// TestUpgradeOfEtcd replaces the binary of member after member, twice, as docs/operate.md has it. Meanwhile no call
// fails, who follows the service sees no endpoint go, and a server stays registered by one write under one lease.
func TestUpgradeOfEtcd(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "etcd")
	install := func(version string) {
		if err := errors.Join(os.RemoveAll(binary), os.Symlink(etcdtest.Etcd(t, version), binary)); err != nil {
			t.Fatal(err)
		}
	}
	install("3.5")
	etcd := etcdtest.New(t, etcdtest.Options{Members: 3, Etcd: binary})
	client := lab.Client(t, etcd.Endpoints()...)
	serve(t, etcd, "blue")
	conn, err := resolver.NewClient(client, "greeter", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	blue := key(t, client, "blue")
	follower := lab.Follow(t, client, "greeter")
	follower.Holds("blue")
	answered := keepCalling(t, conn)

	install("3.6")
	upgrade(t, etcd, client, "3.6")
	serve(t, etcd, "green") // is found by a watch that has outlived three members
	follower.Holds("blue", "green")
	green := key(t, client, "green")
	write(t, client, 10_100)
	install("3.7")
	upgrade(t, etcd, client, "3.7")

	for name, calls := range answered() {
		t.Logf("%d calls answered by %s", calls, name)
		if calls == 0 {
			t.Errorf("%s was not called", name)
		}
	}
	if seen := lab.Contents(follower.Since(0)); !slices.Equal(seen, []string{"blue", "blue green"}) {
		t.Errorf("the endpoints were %q one after the other", seen)
	}
	if after := key(t, client, "blue"); after != blue {
		t.Errorf("blue was written anew: %+v, before %+v", after, blue)
	}
	if after := key(t, client, "green"); after != green {
		t.Errorf("green was written anew: %+v, before %+v", after, green)
	}
}

// write makes so many writes. etcd takes a snapshot every 10,000, after which it reads no older request from its log:
// 3.7 cannot read those of 3.5.
func write(t *testing.T, client *clientv3.Client, writes int) {
	t.Helper()
	const writers = 100
	ctx := lab.Context(t)
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range writes / writers {
				if _, err := client.Put(ctx, "any", ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
}

// upgrade restarts the followers and then the leader, which hands over first. Before each, and at the end, the
// cluster is well; while a member is away, it is degraded.
func upgrade(t *testing.T, etcd *etcdtest.Cluster, client *clientv3.Client, version string) {
	t.Helper()
	awaitLevel(t, client, cluster.OK)
	leader := etcd.Leader()
	for _, member := range append(slices.DeleteFunc(etcd.Members(), func(m *etcdtest.Member) bool { return m == leader }), leader) {
		if member == leader {
			next := etcd.Member((leader.Index() + 1) % 3)
			status, err := client.Status(lab.Context(t), next.Addr())
			if err != nil {
				t.Fatal(err)
			}
			etcd.Etcdctl(t, "move-leader", strconv.FormatUint(status.Header.MemberId, 16))
		}
		member.Stop()
		awaitLevel(t, client, cluster.Degraded)
		member.Start()
		awaitLevel(t, client, cluster.OK)
	}
	for _, member := range etcd.Members() {
		if status, err := client.Status(lab.Context(t), member.Addr()); err != nil || !strings.HasPrefix(status.Version, version) {
			t.Errorf("%s: %v, %v, want version %s", member.Name(), status, err, version)
		}
	}
}

// awaitLevel waits until rollcall status would say so.
func awaitLevel(t *testing.T, client *clientv3.Client, want cluster.Level) {
	t.Helper()
	ctx := lab.Context(t)
	for {
		report := cluster.Inspect(ctx, client, time.Second)
		if report.Level == want {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the cluster is %s, want %s: %s", report.Level, want, report.Summary)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// serve runs a greeter with a client of etcd of its own, until the test ends.
func serve(t *testing.T, etcd *etcdtest.Cluster, id string) {
	t.Helper()
	client := lab.Client(t, etcd.Endpoints()...)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	greeter.Register(server, greeter.Named(id))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- serving.Run(ctx, server, lis, serving.Options{Client: client, Service: "greeter", Endpoint: rollcall.Endpoint{ID: id}})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// written tells writes of a key apart.
type written struct{ revision, lease int64 }

// key returns the write of a server's key, once there is one.
func key(t *testing.T, client *clientv3.Client, id string) written {
	t.Helper()
	ctx := lab.Context(t)
	for {
		resp, err := client.Get(ctx, "greeter/"+id)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Count == 1 {
			return written{resp.Kvs[0].ModRevision, resp.Kvs[0].Lease}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// keepCalling makes calls, of which none may fail, until answered, which returns how many each server has answered.
func keepCalling(t *testing.T, conn *grpc.ClientConn) (answered func() map[string]int) {
	counts := map[string]int{"blue": 0, "green": 0}
	ctx, stop := context.WithCancel(t.Context())
	var calling sync.WaitGroup
	calling.Go(func() {
		for ctx.Err() == nil {
			name, err := greeter.Greet(t.Context(), conn)
			if err != nil {
				t.Errorf("a call failed: %v", err)
			}
			counts[name]++
			time.Sleep(5 * time.Millisecond)
		}
	})
	t.Cleanup(func() { stop(); calling.Wait() })
	return func() map[string]int {
		stop()
		calling.Wait()
		return counts
	}
}
