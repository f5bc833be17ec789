// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// registrarEnv is a registrar on an etcd in memory, in a bubble of virtual time. other is
// another client of the same etcd.
type registrarEnv struct {
	*testing.T
	store     *fakeetcd.Store
	conn      *fakeetcd.Conn
	other     *clientv3.Client
	registrar *Registrar
}

// withRegistrar runs a test in a bubble. What is left running when it ends fails it.
func withRegistrar(t *testing.T, opts RegistrarOptions, test func(d *registrarEnv)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newRegistrarEnv(t, opts)
		defer d.close()
		test(d)
	})
}

func newRegistrarEnv(t *testing.T, opts RegistrarOptions) *registrarEnv {
	t.Helper()
	d := &registrarEnv{T: t, store: fakeetcd.New()}
	d.conn = d.store.Connect(context.Background())
	d.other = d.store.Connect(context.Background()).Client
	directory, err := SharedDirectory(d.conn.Client)
	if err != nil {
		t.Fatal(err)
	}
	opts.NoOrigin = true // most tests compare whole values; see origin_test.go
	if d.registrar, err = NewRegistrar(directory, opts); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *registrarEnv) close() {
	_ = d.registrar.Shutdown(d.within(time.Second))
	d.store.Close()
}

func (d *registrarEnv) within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	d.Cleanup(cancel)
	return ctx
}

// register begins a registration of service "svc" with id and a made-up address.
func (d *registrarEnv) register(id string, metadata any) *Registration {
	d.Helper()
	g, err := d.registrar.Register("svc", Endpoint{ID: id, Addr: "host-" + id + ":80", Metadata: metadata})
	if err != nil {
		d.Fatalf("register %s: %v", id, err)
	}
	return g
}

// registered registers and waits until it is in etcd.
func (d *registrarEnv) registered(id string, metadata any) *Registration {
	d.Helper()
	g := d.register(id, metadata)
	d.noError("wait", g.Wait(d.within(time.Minute)))
	return g
}

func (d *registrarEnv) noError(what string, err error) {
	d.Helper()
	if err != nil {
		d.Fatalf("%s: %v", what, err)
	}
}

// steps returns the transactions of one key each that a request is made of.
func steps(request any) (all []*etcdserverpb.TxnRequest) {
	txn, _ := request.(*etcdserverpb.TxnRequest)
	conditions := txn.GetCompare()
	for _, op := range txn.GetSuccess() {
		if op.GetRequestRange() == nil && len(conditions) > 0 {
			all = append(all, &etcdserverpb.TxnRequest{Compare: conditions[:1], Success: []*etcdserverpb.RequestOp{op}})
			conditions = conditions[1:]
		}
	}
	return all
}

// puts returns what a request puts.
func puts(request any) (all []*etcdserverpb.PutRequest) {
	for _, txn := range steps(request) {
		if put := txn.Success[0].GetRequestPut(); put != nil {
			all = append(all, put)
		}
	}
	return all
}

// key returns what etcd holds, nil for nothing.
func (d *registrarEnv) key(key string) *mvccpb.KeyValue {
	all := d.store.KeyValues()
	if i := slices.IndexFunc(all, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) == key }); i >= 0 {
		return all[i]
	}
	return nil
}

// holds fails unless etcd holds the registration's key with this value under its lease.
func (d *registrarEnv) holds(g *Registration, want string) {
	d.Helper()
	kv := d.key(g.Key())
	lease := d.lease()
	if kv == nil || string(kv.Value) != want || clientv3.LeaseID(kv.Lease) != lease {
		d.Fatalf("%s: got %v, want %s under lease %x", g.Key(), kv, want, int64(lease))
	}
}

// phase fails unless the registration is there, for this reason.
func (d *registrarEnv) phase(g *Registration, want Phase, why error) {
	d.Helper()
	if state, _ := g.State(); state.Phase != want || !errors.Is(state.Err, why) {
		d.Fatalf("%s: got %s (%v), want %s (%v)", g.Key(), state.Phase, state.Err, want, why)
	}
}

func (d *registrarEnv) lease() clientv3.LeaseID {
	d.registrar.mu.Lock()
	defer d.registrar.mu.Unlock()
	return d.registrar.lease
}

// put writes behind the registrar's back.
func (d *registrarEnv) put(key, value string, lease clientv3.LeaseID) int64 {
	d.Helper()
	resp, err := d.other.Put(d.within(time.Second), key, value, clientv3.WithLease(lease))
	d.noError("put", err)
	return resp.Header.Revision
}

// plain is the value of a registration of the env without metadata.
func plain(id string) string { return `{"Op":0,"Addr":"host-` + id + `:80","Metadata":null}` }

func TestRegistrarKeepsEndpointsUnderOneLease(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: 9500 * time.Millisecond}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		b, err := d.registrar.Register("other/svc/", Endpoint{Addr: "10.0.0.1:5", Metadata: map[string]int{"weight": 2}})
		d.noError("register", err)
		d.noError("wait", b.Wait(d.within(time.Minute)))
		d.holds(a, plain("a"))
		d.holds(b, `{"Op":0,"Addr":"10.0.0.1:5","Metadata":{"weight":2}}`)
		if b.Key() != "other/svc/10.0.0.1:5" || b.ID() != "10.0.0.1:5" || a.ID() != "a" || b.Service() != "other/svc" || b.Addr() != "10.0.0.1:5" {
			t.Errorf("got %q, %q, %q", b.Key(), b.Service(), b.Addr())
		}
		revision := d.store.Revision()
		time.Sleep(time.Hour)
		if got := d.store.Revision(); got != revision {
			t.Errorf("%d writes in an hour without a change", got-revision)
		}
		leases := d.store.Leases()
		if len(leases) != 1 || leases[d.lease()].TTL != 10 {
			t.Errorf("leases: %v, want one of 10 s", leases)
		}
		state, _ := a.State()
		if state.Phase != Registered || state.TTL != 10*time.Second || state.Lease != d.lease() || state.Since.IsZero() {
			t.Errorf("state %+v", state)
		}
	})
}

func TestRegistrarRefusesBadInput(t *testing.T) {
	if _, err := NewRegistrar(nil, RegistrarOptions{}); err == nil {
		t.Error("a nil Directory was taken")
	}
	for _, ttl := range []time.Duration{-time.Second, time.Nanosecond, time.Second - 1} {
		directory, err := NewDirectory(clientv3.NewCtxClient(t.Context()), DirectoryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewRegistrar(directory, RegistrarOptions{TTL: ttl})
		var input *InputError
		if !errors.As(err, &input) || input.Field != "TTL" {
			t.Errorf("TTL %v: %v, want an *InputError", ttl, err)
		}
	}
	for _, row := range []struct {
		name, service string
		ep            Endpoint
		field         string
	}{
		{"no service", "", Endpoint{Addr: "h:1"}, "service"},
		{"only slashes", "//", Endpoint{Addr: "h:1"}, "service"},
		{"no address", "svc", Endpoint{}, "address"},
		{"no port", "svc", Endpoint{Addr: "h"}, "address"},
		{"unspecified", "svc", Endpoint{Addr: "0.0.0.0:1"}, "address"},
		{"a socket", "svc", Endpoint{Addr: "unix:/tmp/x"}, "address"},
		{"metadata that is no JSON", "svc", Endpoint{Addr: "h:1", Metadata: func() {}}, "metadata"},
		{"too much metadata", "svc", Endpoint{Addr: "h:1", Metadata: string(make([]byte, MaxMetadata))}, "metadata"},
	} {
		t.Run(row.name, func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
				_, registering := d.registrar.Register(row.service, row.ep)
				for _, err := range []error{registering, d.registrar.Check(row.service, row.ep)} {
					var input *InputError
					if !errors.As(err, &input) || input.Field != row.field {
						t.Errorf("got %v, want an *InputError about the %s", err, row.field)
					}
				}
			})
		})
	}
}

func TestRegistrarTakesWhatItsPolicyTakes(t *testing.T) {
	policy := func(addr string) error {
		if addr == "unix:/run/x" {
			return nil
		}
		return errors.New("not here")
	}
	withRegistrar(t, RegistrarOptions{Policy: policy}, func(d *registrarEnv) {
		d.noError("check", d.registrar.Check("svc", Endpoint{Addr: "unix:/run/x"}))
		if err := d.registrar.Check("svc", Endpoint{Addr: "h:1"}); err == nil {
			t.Error("took what the policy refuses")
		}
		if n := d.conn.Calls(fakeetcd.Grant); n != 0 {
			t.Errorf("%d leases for checks", n)
		}
	})
}

func TestSameKeyTwice(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		first := d.registered("a", nil)
		_, err := d.registrar.Register("svc", Endpoint{ID: "a", Addr: "h:2"})
		var input *InputError
		if !errors.As(err, &input) {
			t.Fatalf("got %v, want an *InputError", err)
		}
		// One that is being closed makes way, also while etcd is unreachable.
		d.conn.Cut()
		if err := first.Shutdown(d.within(time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("close while cut off: %v", err)
		}
		second := d.register("a", map[string]string{"version": "2"})
		d.noError("close of the first", first.Shutdown(d.within(time.Second)))
		d.conn.Mend()
		d.noError("wait", second.Wait(d.within(time.Minute)))
		d.holds(second, `{"Op":0,"Addr":"host-a:80","Metadata":{"version":"2"}}`)
		d.phase(first, Closed, nil)
		time.Sleep(time.Minute)
		d.holds(second, `{"Op":0,"Addr":"host-a:80","Metadata":{"version":"2"}}`)
	})
}

// A restarted instance is its own successor.
func TestRegisterTakesOverAKeyThatStands(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		grant, err := d.other.Grant(d.within(time.Second), 60)
		d.noError("grant", err)
		d.put("svc/a", plain("old"), grant.ID)
		d.holds(d.registered("a", nil), plain("a"))
	})
}

func TestClosingOneLeavesTheOthers(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a, b := d.registered("a", nil), d.registered("b", nil)
		lease := d.lease()
		events := d.other.Watch(context.Background(), "svc/a")
		synctest.Wait()
		d.noError("close a", a.Shutdown(d.within(time.Minute)))
		d.noError("close a again", a.Shutdown(d.within(time.Minute)))
		synctest.Wait()
		var got []string
		for len(events) > 0 {
			for _, ev := range (<-events).Events {
				got = append(got, ev.Type.String()+string(ev.Kv.Value))
			}
		}
		if want := []string{`PUT{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining"}}`, "DELETE"}; !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
		d.holds(b, plain("b"))
		d.noError("close", d.registrar.Shutdown(d.within(time.Minute)))
		d.noError("close again", d.registrar.Shutdown(d.within(time.Minute)))
		ttl, err := d.other.TimeToLive(d.within(time.Second), lease)
		if err != nil || ttl.TTL != -1 {
			t.Errorf("time to live %+v, %v, want -1", ttl, err)
		}
		if got := d.store.Values(); len(got) != 0 {
			t.Errorf("left in etcd: %v", got)
		}
		d.phase(b, Closed, nil)
	})
}

func TestClosedRegistrar(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := d.registrar.Shutdown(d.within(time.Minute)); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		}
		wg.Wait()
		_, err := d.registrar.Register("svc", Endpoint{Addr: "h:1"})
		for what, err := range map[string]error{
			"register": err,
			"wait":     a.Wait(d.within(time.Minute)),
			"update":   a.Update(d.within(time.Minute), nil),
			"drain":    a.Drain(d.within(time.Minute)),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v, want ErrClosed", what, err)
			}
		}
	})
}

func TestCloseWhileEtcdIsAway(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.Cut()
		began := time.Now()
		err := d.registrar.Shutdown(d.within(2 * time.Second))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v, want the context's error", err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("shutdown took %v", took)
		}
		d.phase(a, Closed, context.DeadlineExceeded)
		time.Sleep(10 * time.Second)
		if left := d.store.Values(); len(left) != 0 {
			t.Errorf("the lease did not end %v", left)
		}
	})
}

// Without a lease there is nothing in etcd, so there is nothing to wait for.
func TestCloseBeforeEtcdWasEverThere(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		d.conn.Cut()
		a, b := d.register("a", nil), d.register("b", nil)
		time.Sleep(time.Minute)
		state, _ := a.State()
		if state.Phase != Registering || state.Err == nil {
			t.Errorf("state %+v, want registering and why", state)
		}
		began := time.Now()
		d.noError("close", a.Shutdown(d.within(time.Hour)))
		d.noError("close", d.registrar.Shutdown(d.within(time.Hour)))
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
		d.phase(b, Closed, nil)
	})
}

func TestLeaseLostWhileClosing(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		regs := []*Registration{d.registered("a", nil), d.registered("b", nil), d.registered("c", nil)}
		d.store.ExpireLease(d.lease())
		d.noError("close", regs[0].Shutdown(d.within(time.Minute)))
		d.conn.Fail(fakeetcd.Txn, status.Error(codes.Unavailable, "away"))
		closed := make(chan error)
		go func() { closed <- regs[1].Shutdown(d.within(time.Minute)) }()
		time.Sleep(time.Second)
		d.store.ExpireLease(d.lease())
		d.noError("close with the lease lost meanwhile", <-closed)
		d.conn.Fail(fakeetcd.Txn, nil)
		d.noError("wait", regs[2].Wait(d.within(time.Minute)))
		if got := slices.Collect(maps.Keys(d.store.Values())); !slices.Equal(got, []string{"svc/c"}) {
			t.Errorf("in etcd: %v, want svc/c", got)
		}
	})
}

func TestClosedClientEndsTheRegistrar(t *testing.T) {
	for _, busy := range []bool{true, false} {
		t.Run(fmt.Sprintf("busy %v", busy), func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
				var a *Registration
				if busy {
					a = d.registered("a", nil)
				}
				waited := make(chan error, 1)
				d.conn.Close()
				synctest.Wait()
				grants := d.conn.Calls(fakeetcd.Grant) + d.conn.Calls(fakeetcd.TimeToLive)
				time.Sleep(time.Hour)
				if n := d.conn.Calls(fakeetcd.Grant) + d.conn.Calls(fakeetcd.TimeToLive) - grants; n != 0 {
					t.Errorf("%d calls in an hour on a closed client", n)
				}
				_, err := d.registrar.Register("svc", Endpoint{Addr: "h:1"})
				for what, err := range map[string]error{"register": err, "check": d.registrar.Check("svc", Endpoint{Addr: "h:1"})} {
					if !errors.Is(err, etcdkv.ErrClientClosed) {
						t.Errorf("%s: %v, want that the client is closed", what, err)
					}
				}
				err = d.registrar.Shutdown(context.Background())
				if !busy {
					d.noError("close", err)
					return
				}
				if err == nil {
					t.Error("close: no error, though the lease was not revoked")
				}
				d.phase(a, Closed, etcdkv.ErrClientClosed)
				go func() { waited <- a.Wait(context.Background()) }()
				for what, err := range map[string]error{"wait": <-waited, "update": a.Update(context.Background(), 1), "close": a.Shutdown(context.Background())} {
					if !errors.Is(err, ErrClosed) || !errors.Is(err, etcdkv.ErrClientClosed) {
						t.Errorf("%s: %v, want ErrClosed and why", what, err)
					}
				}
			})
		})
	}
}

// A registrar outlives its directory: the keys are checked in batches then.
func TestDirectoryClosed(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.registrar.directory.Close()
		d.store.Delete("svc/a")
		time.Sleep(4 * time.Second) // a check every TTL/3
		d.holds(a, plain("a"))
		d.noError("check", d.registrar.Check("svc", Endpoint{Addr: "h:1"}))
		b := d.registered("b", nil)
		d.store.Delete(b.Key())
		d.conn.Cut()
		time.Sleep(time.Minute)
		d.phase(b, Lost, ErrNoAnswer)
		d.conn.Mend()
		time.Sleep(15 * time.Second)
		d.holds(a, plain("a"))
		d.holds(b, plain("b"))
		d.phase(b, Registered, nil)
		d.noError("close of one", b.Shutdown(d.within(time.Minute)))
		d.noError("close", d.registrar.Shutdown(d.within(time.Minute)))
	})
}

// A check that waits for an etcd that is gone does not keep the end of the lease from
// being noticed, also where there are many to check.
func TestDoubtAboutTheLeaseIsNoticedAtOnce(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: 4 * time.Second}, func(d *registrarEnv) {
		var regs []*Registration
		for i := range maxKeyWatches + 10 {
			regs = append(regs, d.registered(fmt.Sprint(i), nil))
		}
		for range 10 {
			d.conn.Cut()
			time.Sleep(7 * time.Second) // clientv3 gives a first keepalive 5 s and looks once a second
			for _, g := range regs {
				if state, _ := g.State(); state.Phase != Lost || state.Err == nil {
					t.Fatalf("%s is %s (%v), want lost and why", g.Key(), state.Phase, state.Err)
				}
			}
			d.conn.Mend()
			for _, g := range regs {
				d.noError("wait", g.Wait(d.within(time.Minute)))
			}
		}
	})
}

// What the directory last knew of the way does not count once it is closed.
func TestDirectoryClosedDuringAnOutage(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.Cut()
		time.Sleep(20 * time.Second)
		d.registrar.directory.Close()
		d.conn.Mend()
		d.noError("wait", a.Wait(d.within(time.Minute)))
		d.store.Delete("svc/a")
		time.Sleep(4 * time.Second) // a check every TTL/3
		d.holds(a, plain("a"))
	})
}

// denyService has etcd refuse to show a service as a whole; single keys it shows.
func (d *registrarEnv) denyService() {
	d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
		if call.End != "" {
			return rpctypes.ErrPermissionDenied
		}
		return nil
	})
}

// Many registrations share a watch of their service, and those that no watch tells of are
// looked up in batches. Either way a deleted key is soon back, whatever the TTL.
func TestManyRegistrations(t *testing.T) {
	for _, row := range []struct {
		name   string
		limit  int // of operations in a transaction
		denied bool
		most   int // transactions and lists of the lease's keys in 10 s
	}{{"watched", 128, false, 0}, {"looked up", 128, true, 6}, {"looked up by few", 8, true, 6}} {
		t.Run(row.name, func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{TTL: time.Hour}, func(d *registrarEnv) {
				d.store.SetLimits(row.limit, 1<<20)
				if row.denied {
					d.denyService()
				}
				const n = 5*maxKeyWatches + maxBatch
				var regs []*Registration
				for i := range n {
					regs = append(regs, d.register(fmt.Sprint(i), nil))
				}
				for _, g := range regs {
					d.noError("wait", g.Wait(d.within(time.Minute)))
				}
				time.Sleep(time.Minute) // until the size of a batch has come down to the limit
				synctest.Wait()         // until a probe that is under way has ended
				if got := d.store.Watches(); got > maxKeyWatches+1 {
					t.Errorf("%d watches, want %d and the service's", got, maxKeyWatches)
				}
				calls := func() int { return d.conn.Calls(fakeetcd.Txn) + d.conn.Calls(fakeetcd.TimeToLive) }
				revision, before := d.store.Revision(), calls()
				time.Sleep(10 * time.Second)
				if got := d.store.Revision(); got != revision {
					t.Errorf("%d writes without a reason", got-revision)
				}
				if got := calls() - before; got > row.most {
					t.Errorf("%d messages in 10 s, want %d at most", got, row.most)
				}
				grant, err := d.other.Grant(d.within(time.Second), 3600)
				d.noError("grant", err)
				last, next := regs[n-1], regs[n-2]
				d.store.Delete(last.Key())
				d.put(next.Key(), plain("successor"), grant.ID)
				time.Sleep(verifyKeysEvery + time.Second)
				d.holds(last, plain(fmt.Sprint(n-1)))
				d.phase(next, Lost, ErrSuperseded)
				time.Sleep(time.Minute)
				d.phase(next, Lost, ErrSuperseded)
				d.store.Delete(next.Key())
				time.Sleep(verifyKeysEvery + time.Second)
				d.holds(next, plain(fmt.Sprint(n-2)))
			})
		})
	}
}

// An edit under the lease of a key that no watch tells of is found by a round of all values, and
// where the role may not read a key of the lease, all are looked up each time.
func TestLookUpOfMany(t *testing.T) {
	const n = 5*maxKeyWatches + maxBatch
	for name, row := range map[string]struct {
		lease error
		edit  time.Duration // until an edit is found, at most
	}{
		"by the lease": {nil, 3 * verifyKeysEvery},
		"key by key":   {rpctypes.ErrPermissionDenied, verifyKeysEvery + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{TTL: time.Hour}, func(d *registrarEnv) {
				d.denyService()
				d.conn.Fail(fakeetcd.TimeToLive, row.lease)
				var regs []*Registration
				for i := range n {
					regs = append(regs, d.register(fmt.Sprint(i), nil))
				}
				for _, g := range regs {
					d.noError("wait", g.Wait(d.within(time.Minute)))
				}
				deleted, plainly, edited := regs[n-1], regs[n-2], regs[maxKeyWatches:n-2]
				d.store.Delete(deleted.Key())
				d.put(plainly.Key(), plain(plainly.ID()), clientv3.NoLease)
				for _, g := range edited {
					d.put(g.Key(), fmt.Sprintf(`{"Op":0,"Addr":%q,"Metadata":{"status":"draining"}}`, g.Addr()), d.lease())
				}
				time.Sleep(verifyKeysEvery + time.Second)
				d.holds(deleted, plain(deleted.ID()))
				d.holds(plainly, plain(plainly.ID()))
				time.Sleep(row.edit - verifyKeysEvery - time.Second)
				for _, g := range edited {
					d.phase(g, Draining, nil)
				}
			})
		})
	}
}

// Watches of keys that become free are used again, and that of a service ends with the
// last registration that needs it.
func TestWatchesAreFreed(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		var regs []*Registration
		for i := range maxKeyWatches + 2 {
			regs = append(regs, d.registered(fmt.Sprint(i), nil))
		}
		for _, g := range slices.Backward(regs) {
			d.noError("close", g.Shutdown(d.within(time.Minute)))
		}
		synctest.Wait()
		if n := len(d.registrar.watches); n != 0 || d.registrar.keyWatches != 0 || d.store.Watches() != 0 {
			t.Errorf("%d watches, %d of keys, %d in etcd; want none", n, d.registrar.keyWatches, d.store.Watches())
		}
		if g := d.registered("new", nil); g.watch == nil || g.watch.name != g.key {
			t.Error("the key has no watch of its own, though there is room")
		}
	})
}

func TestFailedCheckIsTriedAgain(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		d.denyService()
		var regs []*Registration
		for i := range maxKeyWatches + 1 {
			regs = append(regs, d.registered(fmt.Sprint(i), nil))
		}
		last := regs[maxKeyWatches]
		d.conn.Fail(fakeetcd.Txn, rpctypes.ErrPermissionDenied)
		d.store.Delete(last.Key())
		time.Sleep(time.Minute)
		d.conn.Fail(fakeetcd.Txn, nil)
		time.Sleep(10 * time.Second)
		d.holds(last, plain(fmt.Sprint(maxKeyWatches)))
	})
}

// L7: what timed out may have happened.
func TestL7LostAnswers(t *testing.T) {
	for _, lost := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
				d.conn.LoseAnswers(lost)
				a := d.registered("a", nil)
				d.holds(a, plain("a"))
				if lost == 2 { // its grant and its put
					if kv := d.key("svc/a"); kv.Version != 1 {
						t.Errorf("written %d times, want once", kv.Version)
					}
				}
				time.Sleep(11 * time.Second)
				leases := d.store.Leases()
				if len(leases) != 1 || !slices.Equal(leases[d.lease()].Keys, []string{"svc/a"}) {
					t.Errorf("leases %v, want one with the key", leases)
				}
				// An update, and a deregistration, whose answers are lost.
				d.conn.LoseAnswers(1)
				d.noError("update", a.Update(d.within(time.Minute), map[string]int{"weight": 2}))
				d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":2}}`)
				d.conn.LoseAnswers(2)
				d.noError("close", a.Shutdown(d.within(time.Minute)))
				if left := d.store.Values(); len(left) != 0 {
					t.Errorf("ghosts: %v", left)
				}
			})
		})
	}
}

// L7: of many registrations too, and the loop does not wait for each one's time-out.
func TestL7ManyLostAnswers(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: 30 * time.Second}, func(d *registrarEnv) {
		d.registered("first", nil)
		d.conn.Cut()
		var regs []*Registration
		for i := range 200 {
			regs = append(regs, d.register(fmt.Sprint(i), nil))
		}
		time.Sleep(12 * time.Second) // most of them have not been tried yet
		d.conn.Mend()
		began := time.Now()
		for _, g := range regs {
			d.noError("wait", g.Wait(d.within(time.Minute)))
		}
		if took := time.Since(began); took > 2*etcdkv.CallTimeout {
			t.Errorf("took %v after mending", took)
		}
	})
}

// L2, and FAULTS' note on backups: what was restored has the lease but not the key, and
// the revision has not got there yet.
func TestRestoredFromABackup(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		first := d.registered("a", nil)
		time.Sleep(time.Second)
		backup := d.store.Snapshot() // before b and before a's update
		b := d.registered("b", nil)
		d.noError("update", first.Update(d.within(time.Minute), map[string]int{"weight": 2}))
		for range 100 {
			d.store.Put("x", "")
		}
		lease := d.lease()
		time.Sleep(time.Second)
		d.store.Restore(backup, 0)
		// Only an answer tells of another epoch; the connection is probed after silence.
		time.Sleep(30 * time.Second)
		if d.lease() != lease {
			t.Fatalf("another lease: the test shows nothing")
		}
		d.holds(b, plain("b"))
		if kv := d.key("svc/a"); kv == nil || clientv3.LeaseID(kv.Lease) != lease {
			t.Errorf("a: %v", kv)
		}
		d.noError("wait", b.Wait(d.within(time.Minute)))
	})
}

// A backup from before a lease was lost has the key under that one: it is ours still.
func TestRestoredUnderALeaseOfBefore(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", map[string]int{"weight": 3})
		first := d.lease()
		backup := d.store.Snapshot()
		d.store.ExpireLease(first)
		time.Sleep(10 * time.Second)
		second := d.lease()
		d.store.Restore(backup, 1000)
		time.Sleep(5 * time.Second) // the restored lease, which nobody renews, lives for 10
		if third := d.lease(); third == first || third == second {
			t.Fatalf("no other lease than %x", int64(third))
		}
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":3}}`)
		d.phase(a, Registered, nil)
	})
}

// Refusals of many registrations make no storm: what concerns all is asked for as if there were one, a full etcd
// is told by one transaction a batch, and what is refused key by key is spaced. When it has gone, all get through.
func TestRefusalsMakeNoStorm(t *testing.T) {
	const n = 2000
	for _, row := range []struct {
		err                error
		atOnce, andAMinute int // transactions, at most: in the first second, and in a minute after it
	}{
		{status.Error(codes.Unavailable, "away"), 100, 600},
		{rpctypes.ErrTooManyRequests, 100, 600},
		{rpctypes.ErrNoSpace, 100, 1500},
		{rpctypes.ErrPermissionDenied, 2 * n, 1500},
	} {
		t.Run(row.err.Error(), func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
				d.registered("first", nil)
				d.conn.Fail(fakeetcd.Txn, row.err)
				before := d.conn.Calls(fakeetcd.Txn)
				var regs []*Registration
				for i := range n {
					regs = append(regs, d.register(fmt.Sprint(i), nil))
				}
				time.Sleep(time.Second)
				atOnce := d.conn.Calls(fakeetcd.Txn)
				time.Sleep(time.Minute)
				if a, b := atOnce-before, d.conn.Calls(fakeetcd.Txn)-atOnce; a > row.atOnce || b > row.andAMinute {
					t.Errorf("%d transactions in a second and %d in a minute after it, want %d and %d at most", a, b, row.atOnce, row.andAMinute)
				}
				d.conn.Fail(fakeetcd.Txn, nil)
				mended := time.Now()
				for _, g := range regs {
					d.noError("wait", g.Wait(d.within(time.Minute)))
				}
				if took := time.Since(mended); took > 5*time.Second {
					t.Errorf("all were registered %v after it was mended", took)
				}
				if !errors.Is(row.err, rpctypes.ErrPermissionDenied) {
					return
				}
				d.conn.Fail(fakeetcd.Txn, row.err)
				for _, g := range regs {
					g.Close()
				}
				time.Sleep(time.Minute)
				d.conn.Fail(fakeetcd.Txn, nil)
				mended = time.Now()
				for _, g := range regs {
					d.noError("shutdown", g.Shutdown(d.within(time.Minute)))
				}
				if took := time.Since(mended); took > 5*time.Second {
					t.Errorf("all were removed %v after it was mended", took)
				}
			})
		})
	}
}

func TestL2DataLostInMemory(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a, b := d.registered("a", nil), d.registered("b", map[string]int{"weight": 3})
		d.store.Wipe()
		d.conn.Cut()
		time.Sleep(time.Minute)
		if state, _ := a.State(); state.Phase != Lost || state.Err == nil {
			t.Errorf("state %+v, want lost and why", state)
		}
		d.conn.Mend()
		time.Sleep(10 * time.Second)
		d.holds(a, plain("a"))
		d.holds(b, `{"Op":0,"Addr":"host-b:80","Metadata":{"weight":3}}`)
		d.phase(a, Registered, nil)
	})
}

func TestNoSpaceIsATypedErrorAndRetried(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.Fail(fakeetcd.Txn, rpctypes.ErrNoSpace)
		b := d.register("b", nil)
		if err := b.Wait(d.within(20 * time.Second)); !errors.Is(err, rpctypes.ErrNoSpace) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait: %v, want the time-out and etcd's reason", err)
		}
		d.phase(b, Registering, rpctypes.ErrNoSpace)
		d.phase(a, Registered, nil)
		d.conn.Fail(fakeetcd.Txn, nil)
		d.noError("wait", b.Wait(d.within(time.Minute)))
		// A full etcd takes deletions, though not the mark before.
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if len(puts(call.Request)) > 0 {
				return rpctypes.ErrNoSpace
			}
			return nil
		})
		d.noError("close", b.Shutdown(d.within(time.Minute)))
		d.conn.SetHook(nil)
		if kv := d.key("svc/b"); kv != nil {
			t.Errorf("left: %v", kv)
		}
		// Those that leave do not wait for others that would come.
		full := func(_ context.Context, call fakeetcd.Call) error {
			if len(puts(call.Request)) > 0 {
				return rpctypes.ErrNoSpace
			}
			return nil
		}
		var leaving, coming []*Registration
		for i := range 50 {
			leaving = append(leaving, d.registered(fmt.Sprint("leaves-", i), nil))
		}
		d.conn.SetHook(full)
		for i := range 50 {
			coming = append(coming, d.register(fmt.Sprint("comes-", i), nil))
			leaving[i].Close()
		}
		for _, g := range leaving {
			d.noError("close", g.Shutdown(d.within(3*time.Second)))
		}
		d.conn.SetHook(nil)
		for _, g := range coming {
			d.noError("wait", g.Wait(d.within(time.Minute)))
			g.Close()
		}
		d.conn.Fail(fakeetcd.Grant, rpctypes.ErrNoSpace)
		d.store.ExpireLease(d.lease())
		time.Sleep(time.Minute)
		d.phase(a, Lost, rpctypes.ErrNoSpace)
		d.conn.Fail(fakeetcd.Grant, nil)
		time.Sleep(10 * time.Second)
		d.holds(a, plain("a"))
	})
}

// A keepalive that fails at once must not make the Registrar spin.
func TestKeepAliveHalted(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		d.registered("a", nil)
		d.noError("close", d.conn.Client.Lease.Close())
		time.Sleep(time.Minute)
		calls := d.conn.Calls(fakeetcd.TimeToLive) + d.conn.Calls(fakeetcd.Grant)
		time.Sleep(10 * time.Minute)
		if n := d.conn.Calls(fakeetcd.TimeToLive) + d.conn.Calls(fakeetcd.Grant) - calls; n > 500 {
			t.Errorf("%d calls in 10 min", n)
		}
	})
}

// Whatever is done at once, and whatever etcd does meanwhile, etcd ends up holding
// exactly what is registered.
func TestRegistrarConverges(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: 5 * time.Second}, func(d *registrarEnv) {
		const workers, keys = 8, 24 // more keys than are watched
		stop := make(chan struct{})
		var faults, users sync.WaitGroup
		faults.Go(func() {
			for {
				select {
				case <-stop:
					d.conn.Mend()
					return
				case <-time.After(rand.N(2 * time.Second)):
				}
				switch rand.N(6) {
				case 0:
					d.conn.Cut()
				case 1, 2:
					d.conn.Mend()
				case 3:
					d.store.ExpireLease(d.lease())
				case 4:
					d.store.Delete(fmt.Sprintf("svc/%d", rand.N(keys)))
				case 5:
					d.conn.LoseAnswers(1)
				}
			}
		})
		want := make([]map[string]*Registration, workers)
		for w := range workers {
			want[w] = make(map[string]*Registration)
			users.Go(func() {
				for range 50 {
					d.useAtRandom(want[w], fmt.Sprint(w+workers*rand.N(keys/workers)))
				}
			})
		}
		users.Wait()
		close(stop)
		faults.Wait()
		d.conn.LoseAnswers(0)
		time.Sleep(time.Minute)
		left := d.store.Values()
		for _, regs := range want {
			for _, g := range regs {
				d.noError("wait", g.Wait(d.within(time.Minute)))
				g.registrar.mu.Lock()
				value := string(g.observed.current)
				g.registrar.mu.Unlock()
				d.holds(g, value)
				delete(left, g.Key())
			}
		}
		if len(left) != 0 {
			t.Errorf("ghosts: %v", left)
		}
		if n := len(d.store.Leases()); n != 1 {
			t.Errorf("%d leases, want 1", n)
		}
	})
}

// useAtRandom does one thing with a key of the worker whose registrations are given.
func (d *registrarEnv) useAtRandom(regs map[string]*Registration, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), rand.N(4*time.Second))
	defer cancel()
	g := regs[id]
	switch n := rand.N(5); {
	case g == nil:
		regs[id] = d.register(id, nil)
	case n == 0:
		_ = g.Update(ctx, map[string]int{"weight": 1 + rand.N(9)})
	case n == 1:
		_ = g.Drain(ctx)
	case n == 2:
		_ = g.Shutdown(ctx)
		delete(regs, id)
	default:
		_ = g.Wait(ctx)
	}
}
