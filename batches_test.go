// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

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
