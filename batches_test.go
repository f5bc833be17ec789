// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// What is closed while there is no lease is not kept.
func TestClosedWithoutALease(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		d.conn.Cut()
		stays := d.register("stays", nil)
		for i := range 1000 {
			d.register(fmt.Sprint(i), nil).Close()
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		r := d.registrar
		r.mu.Lock()
		kept := len(r.dirty) + len(r.unwatched) + len(r.regs)
		r.mu.Unlock()
		if kept > 200 { // those since the last try, 10 s ago at most, and what stays
			t.Errorf("%d are kept of one registration", kept)
		}
		d.conn.Mend()
		d.noError("wait", stays.Wait(d.within(time.Minute)))
	})
}

// The watch of a service begins when all is written: its list then has all keys.
func TestServiceIsWatchedOnceWritten(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		const n = 3 * maxBatch
		listed := -1
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			switch {
			case call.Method == fakeetcd.Txn:
				time.Sleep(10 * time.Millisecond)
			case call.Method == fakeetcd.Get && call.Key == "svc/" && call.End != "" && listed < 0:
				listed = len(d.store.KeyValues())
			}
			return nil
		})
		var regs []*Registration
		for i := range n {
			if i == maxBatch { // those after it become due while the first are written
				time.Sleep(5 * time.Millisecond)
			}
			regs = append(regs, d.register(fmt.Sprint(i), nil))
		}
		for _, g := range regs {
			d.noError("wait", g.Wait(d.within(time.Minute)))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if listed != n {
			t.Errorf("%d keys were there when the service was listed, want %d", listed, n)
		}
	})
}

// batch does something with ten ids while another registration is written, so that they are due
// together. change is called before each transaction that puts svc/5, under a lock, and the transaction
// that then reads the keys of all ten fails with its error. batch returns, by key, how often one was to be put.
func (d *registrarEnv) batch(do func(id string), change func() error) map[string]int {
	var mu sync.Mutex
	sent := make(map[string]int)
	var unread error
	d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
		mu.Lock()
		for _, put := range puts(call.Request) {
			if sent[string(put.Key)]++; string(put.Key) == "svc/5" {
				unread = change()
			}
		}
		var err error
		if len(call.Reads()) == 10 { // fewer, where watches of single keys begin
			err = unread
		}
		mu.Unlock()
		time.Sleep(10 * time.Millisecond)
		return err
	})
	d.register("first", nil)
	synctest.Wait()
	for i := range 10 {
		do(fmt.Sprint(i))
	}
	time.Sleep(time.Second)
	mu.Lock()
	defer mu.Unlock()
	return maps.Clone(sent)
}

// A key that others go on changing keeps none of its batch waiting.
func TestContestedKeyOfABatch(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		d.registered("lease", nil)
		regs := make(map[string]*Registration)
		var contested atomic.Bool
		contested.Store(true)
		sent := d.batch(func(id string) { regs[id] = d.register(id, nil) }, func() error {
			if contested.Load() {
				d.put("svc/5", plain("other"), clientv3.NoLease)
			}
			return nil
		})
		for id, g := range regs {
			if id == "5" {
				d.phase(g, Registering, nil)
				continue
			}
			d.phase(g, Registered, nil)
			if n := sent[g.Key()]; n != 2 {
				t.Errorf("%s was sent %d times, want twice: with svc/5 and without", g.Key(), n)
			}
		}
		contested.Store(false)
		d.noError("wait", regs["5"].Wait(d.within(time.Minute)))
		d.holds(regs["5"], plain("5"))
	})
}

// Where one of a batch was edited meanwhile, all are still marked before they go.
func TestEditWhileABatchLeaves(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		regs := make(map[string]*Registration)
		for i := range 10 {
			regs[fmt.Sprint(i)] = d.registered(fmt.Sprint(i), nil)
		}
		events := d.other.Watch(d.within(time.Minute), "svc/", clientv3.WithPrefix())
		synctest.Wait()
		edited := false
		sent := d.batch(func(id string) { regs[id].Close() }, func() error {
			if !edited {
				edited = true
				d.put("svc/5", `{"Op":0,"Addr":"host-5:80","Metadata":{"weight":7}}`, d.lease())
			}
			return nil
		})
		if sent["svc/0"] != 2 {
			t.Errorf("svc/0 was marked %d times, want twice: the test shows nothing", sent["svc/0"])
		}
		last := make(map[string]string)
		for left := len(regs); left > 0; {
			for _, e := range (<-events).Events {
				key := string(e.Kv.Key)
				if e.Type == clientv3.EventTypePut {
					last[key] = statusOf(e.Kv.Value)
					continue
				}
				if left--; last[key] != StatusDraining {
					t.Errorf("%s was deleted without a mark", key)
				}
			}
		}
		for _, g := range regs {
			d.phase(g, Closed, nil)
			if d.key(g.Key()) != nil {
				t.Errorf("%s was left", g.Key())
			}
		}
	})
}

// Where another key of the batch keeps a write from being taken, the key is read again as it was, which
// is no second edit: an endpoint that an operator edited while it drained serves once the program wants it.
func TestUndrainOfAnEditedEndpointInABatch(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		regs := make(map[string]*Registration)
		for i := range 10 {
			regs[fmt.Sprint(i)] = d.registered(fmt.Sprint(i), nil)
		}
		d.noError("drain", regs["0"].Drain(d.within(time.Minute)))
		now, cancel := context.WithCancel(context.Background())
		cancel()
		edited := false
		sent := d.batch(func(id string) {
			switch id {
			case "0":
				d.put("svc/0", `{"Op":0,"Addr":"host-0:80","Metadata":{"weight":7,"status":"draining"}}`, d.lease())
				_ = regs[id].Undrain(now)
			case "5": // edited as well, so that it is written together with svc/0
				d.put("svc/5", `{"Op":0,"Addr":"host-5:80","Metadata":{"zone":"a"}}`, d.lease())
				_ = regs[id].Update(now, map[string]int{"weight": 2})
			}
		}, func() error {
			if !edited {
				edited = true
				d.put("svc/5", `{"Op":0,"Addr":"host-5:80","Metadata":{"zone":"b"}}`, d.lease())
			}
			return nil
		})
		if sent["svc/0"] != 2 {
			t.Errorf("svc/0 was sent %d times, want twice: the test shows nothing", sent["svc/0"])
		}
		d.noError("wait", regs["0"].Wait(d.within(time.Minute)))
		d.holds(regs["0"], `{"Op":0,"Addr":"host-0:80","Metadata":{"weight":7}}`)
		d.phase(regs["0"], Registered, nil)
	})
}

// Writes that were not taken are not in doubt because the keys could not be read afterwards: no lease is
// given up for them.
func TestUnreadKeysOfABatch(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		d.registered("lease", nil)
		regs := make(map[string]*Registration)
		contested := false
		sent := d.batch(func(id string) { regs[id] = d.register(id, nil) }, func() error {
			if contested {
				return nil
			}
			contested = true
			d.put("svc/5", plain("other"), clientv3.NoLease)
			return rpctypes.ErrTimeout
		})
		for _, g := range regs {
			d.noError("wait", g.Wait(d.within(time.Minute)))
		}
		if sent["svc/0"] != 3 {
			t.Errorf("svc/0 was sent %d times, want thrice: the test shows nothing", sent["svc/0"])
		}
		d.noError("shutdown", regs["0"].Shutdown(d.within(time.Minute)))
		time.Sleep(time.Minute)
		if n := d.registrar.Stats().LeasesReplaced; n != 0 {
			t.Errorf("%d leases were given up", n)
		}
	})
}

// Keys that successors have are looked up, and left alone, without a write.
func TestLookUpOfSuperseded(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Hour}, func(d *registrarEnv) {
		d.denyService()
		const n = maxKeyWatches + 2*maxBatch
		var regs []*Registration
		for i := range n {
			regs = append(regs, d.register(fmt.Sprint(i), nil))
		}
		for _, g := range regs {
			d.noError("wait", g.Wait(d.within(time.Minute)))
		}
		lease, err := d.other.Grant(context.Background(), 3600)
		d.noError("grant", err)
		for _, g := range regs[n-5:] {
			d.put(g.Key(), plain(g.ID()), lease.ID)
		}
		time.Sleep(2 * verifyKeysEvery)
		for _, g := range regs[n-5:] {
			d.phase(g, Lost, ErrSuperseded)
		}
		before := d.conn.Calls(fakeetcd.Txn)
		time.Sleep(10 * verifyKeysEvery)
		if got := d.conn.Calls(fakeetcd.Txn) - before; got > 11 { // one each
			t.Errorf("%d transactions in ten looks", got)
		}
		d.store.ExpireLease(lease.ID)
		time.Sleep(2 * verifyKeysEvery)
		for _, g := range regs[n-5:] {
			d.phase(g, Registered, nil)
		}
	})
}
