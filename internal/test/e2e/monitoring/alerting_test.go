// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

func port(t *testing.T, addr string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestPrometheus: a real Prometheus finds registered processes by HTTP service discovery, scrapes them,
// and raises no alert in quiet times; each fault raises its alert and no other, which ends with it.
func TestPrometheus(t *testing.T) { testAlerts(t, (*fleet).endpointFaults) }

// TestPrometheusProcesses is the same for faults of processes and of etcd.
func TestPrometheusProcesses(t *testing.T) { testAlerts(t, (*fleet).processFaults) }

func testAlerts(t *testing.T, faults func(f *fleet) []fault) {
	t.Parallel()
	installed(t, "prometheus")
	f := newFleet(t)
	p := startPrometheus(t, f.serve.admin)
	want := map[string]string{f.serve.admin: "rollcall-serve", f.cart.addr: "shop/cart eu-1", f.cart2.addr: "shop/cart eu-2", f.pay.addr: "shop/pay eu-1"}
	found := func() (bool, any) { diff := cmp.Diff(want, p.targets()); return diff == "", diff }
	eventually(t, "all are found and scraped", found)
	promtool(t, []byte(f.serve.metrics()), "check", "metrics")
	p.wantQuiet()
	p.wantFiring("") // none

	for _, fault := range faults(f) {
		began := time.Now()
		fault.induce()
		p.wantFiring(fault.may, fault.alerts...)
		fired := time.Since(began)
		fault.mend()
		p.wantQuiet()
		t.Logf("%v fires, within %v; after %v all is quiet", fault.alerts, fired, time.Since(began))
	}
}

// fleet is an etcd, a rollcall serve and programs that register.
type fleet struct {
	t                *testing.T
	etcd             *etcdtest.Cluster
	client           *clientv3.Client
	serve            *serve
	cart, cart2, pay *app
	registration     *rollcall.Registration // of cart2
	link             *etcdtest.Link         // from pay to etcd
	lost             clientv3.LeaseID       // of the endpoints of fault/mass
}

const manyServices = 40

func newFleet(t *testing.T) *fleet {
	f := &fleet{t: t, etcd: lab.Start(t, etcdtest.Options{})}
	endpoint := f.etcd.Endpoints()[0]
	f.client = lab.Client(t, endpoint)
	f.link = etcdtest.NewLink(t, endpoint)
	f.serve = newServe(t, endpoint)
	f.serve.start()
	f.cart = newApp(t, lab.Client(t, endpoint), rollcall.DirectoryOptions{SelfPreservation: rollcall.SelfPreservation{Share: 0.5}})
	f.cart2 = newApp(t, lab.Client(t, endpoint), rollcall.DirectoryOptions{})
	f.pay = newApp(t, lab.Client(t, f.link.Addr()), rollcall.DirectoryOptions{})
	f.cart.register("shop/cart", "eu-1")
	f.registration = f.cart2.register("shop/cart", "eu-2")
	f.pay.register("shop/pay", "eu-1")

	lab.Put(t, f.client, "fault/last", "a", nil)
	f.cart2.follow("fault/last")
	f.putMass()
	f.cart.follow("fault/mass")
	for i := range manyServices {
		service := fmt.Sprintf("fault/many-%d", i)
		lab.Put(t, f.client, service, "a", nil)
		f.pay.follow(service)
	}
	return f
}

// putMass puts endpoints that can vanish at once.
func (f *fleet) putMass() {
	f.t.Helper()
	lease, err := f.client.Grant(lab.Context(f.t), 600)
	if err != nil {
		f.t.Fatal(err)
	}
	f.lost = lease.ID
	value, _ := rollcall.Encode("10.0.0.1:80", nil)
	var puts []clientv3.Op
	for i := range 4 {
		puts = append(puts, clientv3.OpPut(fmt.Sprintf("fault/mass/%d", i), string(value), clientv3.WithLease(lease.ID)))
	}
	if _, err := f.client.Txn(lab.Context(f.t)).Then(puts...).Commit(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) revoke(lease clientv3.LeaseID) {
	f.t.Helper()
	if _, err := f.client.Revoke(lab.Context(f.t), lease); err != nil {
		f.t.Fatal(err)
	}
}

// fault is what goes wrong, how it ends, and what is to fire in between.
type fault struct {
	alerts       []string
	induce, mend func()
	may          string // another alert that may fire, "" for none
}

// endpointFaults are faults of endpoints, registrations and services.
func (f *fleet) endpointFaults() []fault {
	allow := func() {}
	return []fault{
		{[]string{"RollcallNoServingEndpoints"},
			func() { lab.Put(f.t, f.client, "fault/last", "a", map[string]any{"status": "draining"}) },
			func() { lab.Put(f.t, f.client, "fault/last", "a", nil) }, ""},
		{[]string{"RollcallNoServingEndpoints"},
			func() { lab.Remove(f.t, f.client, "fault/last/a") },
			func() { lab.Put(f.t, f.client, "fault/last", "a", nil) }, ""},
		{[]string{"RollcallUnusableEndpoints"},
			func() { lab.PutValue(f.t, f.client, "fault/last/b", "not an endpoint") },
			func() { lab.Remove(f.t, f.client, "fault/last/b") }, ""},
		{[]string{"RollcallUnusableEndpoints"},
			func() { lab.PutValue(f.t, f.client, "fault/last/b", `{"Op":0,"Addr":"unix:/run/b"}`) },
			func() { lab.Remove(f.t, f.client, "fault/last/b") }, ""},
		{[]string{"RollcallMassLoss"}, func() { f.revoke(f.lost) }, f.putMass, ""},
		{[]string{"RollcallLeaseLosses"}, f.loseLeases, func() {}, ""},
		{[]string{"RollcallNotRegistered"}, f.supersede, func() { f.revoke(f.lost) }, ""},
		{[]string{"RollcallServiceStale"}, func() { allow = f.forbid() }, func() { allow() }, ""},
	}
}

// processFaults are faults of processes and of etcd.
func (f *fleet) processFaults() []fault {
	member := f.etcd.Member(0)
	etcdBack := func() {
		member.Start()
		f.etcd.WaitReady()
	}
	return []fault{
		// Where minutes are this short, a service that is being listed again may be stale for some.
		{[]string{"RollcallRelistStorm"}, f.compactAgain, func() {}, "RollcallServiceStale"},
		{[]string{"RollcallSlowUpdates"}, f.slowDown, func() {}, ""},
		{[]string{"RollcallXDSRejected"}, f.reject, func() {}, ""},
		{[]string{"RollcallEtcdUnreachable"}, member.Kill, etcdBack, ""},
		{[]string{"RollcallServeDown"}, func() { kill(f.serve.cmd) }, f.serve.start, ""},
		{[]string{"RollcallEtcdUnreachable", "RollcallServeNotReady"},
			func() {
				another := f.announceServe()
				member.Kill()
				another.start()
			}, etcdBack, ""},
	}
}

// loseLeases takes the lease of a process away, twice.
func (f *fleet) loseLeases() {
	f.t.Helper()
	for range 2 {
		state, _ := f.registration.State()
		f.revoke(state.Lease)
		eventually(f.t, "it is registered under another lease", func() (bool, any) {
			now, _ := f.registration.State()
			return now.Phase == rollcall.Registered && now.Lease != state.Lease, now
		})
	}
}

// supersede has another process take the key of a registration.
func (f *fleet) supersede() {
	f.t.Helper()
	lease, err := f.client.Grant(lab.Context(f.t), 600)
	if err != nil {
		f.t.Fatal(err)
	}
	f.lost = lease.ID
	value, _ := rollcall.Encode("127.0.0.1:1", map[string]any{"metrics_port": port(f.t, f.cart2.addr)})
	if _, err := f.client.Put(lab.Context(f.t), f.registration.Key(), string(value), clientv3.WithLease(lease.ID)); err != nil {
		f.t.Fatal(err)
	}
}

// forbid has a process follow a service that it may not read, on an etcd of its own, until the
// service may be read.
func (f *fleet) forbid() (allow func()) {
	f.t.Helper()
	etcd := etcdtest.New(f.t, etcdtest.Options{})
	admin := lab.WithAuth(f.t, etcd)
	cfg := rollcall.ClientConfig(etcd.Endpoints()...)
	cfg.Username, cfg.Password = "reader", "reader-pw"
	a := newApp(f.t, lab.ClientOf(f.t, cfg), rollcall.DirectoryOptions{})
	lab.Put(f.t, admin, "fault/private", "a", nil)
	a.follow("fault/private")
	value, _ := rollcall.Encode(a.addr, nil)
	lab.PutValue(f.t, f.client, rollcall.Key("shop/private", a.addr), string(value))
	return func() {
		if _, err := admin.RoleGrantPermission(lab.Context(f.t), "reader", "fault/private/", "fault/private0", clientv3.PermissionType(clientv3.PermRead)); err != nil {
			f.t.Fatal(err)
		}
	}
}

// compactAgain has a process, for a while, fall behind etcd's compaction whenever it has caught up.
func (f *fleet) compactAgain() {
	f.t.Helper()
	value, _ := rollcall.Encode("10.0.0.1:80", nil)
	var puts []clientv3.Op
	for i := range manyServices {
		puts = append(puts, clientv3.OpPut(fmt.Sprintf("fault/many-%d/a", i), string(value)))
	}
	lists := func() uint64 { return f.pay.directory.Stats().ListsBy["compacted"] }
	for until := time.Now().Add(16 * minute); time.Now().Before(until); {
		before := lists()
		f.link.Cut()
		for range 2 { // the last revision is not compacted
			if _, err := f.client.Txn(lab.Context(f.t)).Then(puts...).Commit(); err != nil {
				f.t.Fatal(err)
			}
		}
		lab.Compact(f.t, f.client)
		f.link.Mend()
		eventually(f.t, "all services are listed again", func() (bool, any) { return lists() >= before+manyServices, lists() })
		// It follows them for a second, and so does not wait before it lists them the next time: the
		// rate is of 2.5 s.
		time.Sleep(1500 * time.Millisecond)
	}
}

// announceServe has Prometheus know of another rollcall serve, which does not run yet.
func (f *fleet) announceServe() *serve {
	f.t.Helper()
	another := &serve{t: f.t, path: f.serve.path, xds: freeAddr(f.t), admin: freeAddr(f.t), etcd: f.serve.etcd}
	value, _ := rollcall.Encode(another.admin, nil)
	lab.PutValue(f.t, f.client, "shop/serve/a", string(value))
	eventually(f.t, "it is a target", func() (bool, any) {
		_, body := get(f.t, "http://"+f.serve.admin+"/prometheus/sd?prefix=shop/")
		return strings.Contains(body, another.admin), body
	})
	return another
}

// slowDown has functions that take long follow a service that changes often.
func (f *fleet) slowDown() {
	f.t.Helper()
	lab.Put(f.t, f.client, "fault/slow", "a", nil)
	for i := range 5 { // each at another time, so that some delivery is slow at any time
		delivery, err := f.cart.directory.SubscribeFunc("fault/slow", func(*rollcall.Snapshot, error) { time.Sleep(time.Second + time.Duration(i)*minute/2) })
		if err != nil {
			f.t.Fatal(err)
		}
		defer delivery.Close()
	}
	began := time.Now()
	for time.Since(began) < 16*minute {
		lab.Put(f.t, f.client, "fault/slow", "a", map[string]any{"after": time.Since(began)})
		time.Sleep(50 * time.Millisecond)
	}
}

// reject is an xDS client that rejects what it is sent.
func (f *fleet) reject() {
	f.t.Helper()
	conn, err := grpc.NewClient(f.serve.xds, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(lab.Context(f.t))
	if err != nil {
		f.t.Fatal(err)
	}
	req := &discoveryv3.DiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", ResourceNames: []string{"shop/cart"}}
	_ = stream.Send(req)
	resp, err := stream.Recv()
	if err != nil {
		f.t.Fatal(err)
	}
	req.ResponseNonce, req.ErrorDetail = resp.GetNonce(), &rpcstatus.Status{Message: "no"}
	_ = stream.Send(req)
	eventually(f.t, "the rejection has arrived", func() (bool, any) {
		text := f.serve.metrics()
		return !strings.Contains(text, "rollcall_xds_nacks_total 0"), text
	})
}
