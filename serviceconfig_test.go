// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// configLog records what a function that service configs are delivered to was told.
type configLog struct {
	mu   sync.Mutex
	told []string
}

func (l *configLog) deliver(config *rollcall.ServiceConfig, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.told = append(l.told, "error")
	case config.JSON == nil:
		l.told = append(l.told, "none")
	default:
		l.told = append(l.told, string(config.JSON))
	}
}

func (l *configLog) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if fmt.Sprint(l.told) != fmt.Sprint(want) {
		t.Errorf("told of %v, want %v", l.told, want)
	}
	l.told = nil
}

// P8: the service configs of all services share one watch, and each service hears of its own
// only.
func TestP8ServiceConfigsShareAWatch(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		const services = 200
		d := directory(t, conn)
		defer d.Close()
		store.Put(rollcall.ConfigPrefix+"svc-7", `{"a":1}`)
		logs := make([]configLog, services)
		deliveries := make([]*rollcall.ConfigDelivery, services)
		for i := range logs {
			var err error
			if deliveries[i], err = d.SubscribeServiceConfigFunc(fmt.Sprintf("svc-%d", i), logs[i].deliver); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for i := range logs {
			if i == 7 {
				logs[i].want(t, `{"a":1}`)
			} else {
				logs[i].want(t, "none")
			}
		}
		if n := d.Stats().Watches; n != 1 {
			t.Errorf("%d watches for %d service configs, want 1", n, services)
		}
		store.Put(rollcall.ConfigPrefix+"svc-8", `{"a":2}`)
		store.Put(rollcall.ConfigPrefix+"unfollowed", `{"a":3}`)
		time.Sleep(time.Second)
		logs[7].want(t)
		logs[8].want(t, `{"a":2}`)
		var late configLog
		other, err := d.SubscribeServiceConfigFunc("unfollowed", late.deliver)
		if err != nil {
			t.Fatal(err)
		}
		late.want(t, `{"a":3}`)
		other.Close()
		store.Delete(rollcall.ConfigPrefix + "svc-8")
		conn.CancelWatches(rpctypes.ErrCompacted) // it is listed again
		time.Sleep(time.Second)
		logs[8].want(t, "none")
		logs[9].want(t)
		for _, delivery := range deliveries {
			delivery.Close()
		}
		store.Put(rollcall.ConfigPrefix+"svc-7", `{"a":4}`)
		time.Sleep(time.Minute)
		logs[7].want(t)
		if n := conn.Watches(); n != 0 {
			t.Errorf("%d watches after the last was closed", n)
		}
	})
}

// A role that may not read all service configs follows those that it asks for, until it may.
func TestServiceConfigsOneByOne(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		store.Put(rollcall.ConfigPrefix+"a", `{"a":1}`)
		store.Put(rollcall.ConfigPrefix+"b", `{"b":1}`)
		conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if reads := call.Reads(); slices.Contains(reads, rollcall.ConfigPrefix) || slices.Contains(reads, rollcall.ConfigPrefix+"b") {
				return rpctypes.ErrGRPCPermissionDenied
			}
			return nil
		})
		var a, b configLog
		for service, log := range map[string]*configLog{"a": &a, "b": &b} {
			if _, err := d.SubscribeServiceConfigFunc(service, log.deliver); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		a.want(t, `{"a":1}`)
		b.want(t, "error")
		store.Put(rollcall.ConfigPrefix+"a", `{"a":2}`)
		time.Sleep(time.Second)
		a.want(t, `{"a":2}`)
		conn.SetHook(nil)
		time.Sleep(8 * time.Minute)
		b.want(t, `{"b":1}`)
		a.want(t)
		// clientv3 leaves a watch at the member that is cancelled before the member has confirmed
		// it: one of b's, if it was being opened.
		if n := conn.Watches(); n > 2 {
			t.Errorf("%d watches once all may be read, want 1, or 2 by chance", n)
		}
		store.Put(rollcall.ConfigPrefix+"a", `{"a":3}`)
		time.Sleep(time.Second)
		a.want(t, `{"a":3}`)
	})
}

func TestServiceConfigIsWritten(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		ctx := t.Context()
		none, err := d.ServiceConfig(ctx, "svc")
		if err != nil || none.JSON != nil || none.ModRevision != 0 || none.Service != "svc" {
			t.Fatalf("got %+v, %v, want none", none, err)
		}
		none.JSON = json.RawMessage(`{"a":1}`)
		first, err := d.PutServiceConfig(ctx, *none)
		if err != nil {
			t.Fatal(err)
		}
		read, err := d.ServiceConfig(ctx, "svc")
		if err != nil || string(read.JSON) != `{"a":1}` || read.ModRevision != first.ModRevision {
			t.Errorf("got %+v, %v, want what was written, %+v", read, err, first)
		}
		if _, err := d.PutServiceConfig(ctx, *none); !errors.Is(err, rollcall.ErrConfigChanged) {
			t.Errorf("written over another's config: %v", err)
		}
		if err := d.DeleteServiceConfig(ctx, *none); !errors.Is(err, rollcall.ErrConfigChanged) {
			t.Errorf("another's config deleted: %v", err)
		}
		var input *rollcall.InputError
		for _, bad := range []rollcall.ServiceConfig{{Service: "svc"}, {Service: "svc", JSON: []byte("null")}, {Service: "svc", JSON: []byte("[]")}, {JSON: []byte("{}")}} {
			if _, err := d.PutServiceConfig(ctx, bad); !errors.As(err, &input) {
				t.Errorf("%+v: %v, want an InputError", bad, err)
			}
		}
		if err := d.DeleteServiceConfig(ctx, *first); err != nil {
			t.Fatal(err)
		}
		if read, err = d.ServiceConfig(ctx, "svc"); err != nil || read.JSON != nil {
			t.Errorf("got %+v, %v, want none", read, err)
		}
		conn.Fail(fakeetcd.Get, rpctypes.ErrGRPCPermissionDenied)
		if _, err := d.ServiceConfig(ctx, "svc"); !errors.Is(err, rpctypes.ErrPermissionDenied) || !strings.Contains(err.Error(), `"svc"`) {
			t.Errorf("got %v, want a refusal that names the service", err)
		}
	})
}

func TestServiceStats(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		store.Put("b/x", `{"Addr":"x:1"}`)
		next(t, subscribe(t, d, "b"))
		next(t, subscribe(t, d, "b"))
		next(t, subscribe(t, d, "a"))
		store.Put("b/y", `{"Addr":"y:1"}`)
		store.Put("b/z", `{"Addr":"z:1"}`)
		time.Sleep(time.Second)
		got := d.ServiceStats()
		if len(got) != 2 || got[0].Service != "a" || got[1].Service != "b" {
			t.Fatalf("got %+v, want a and b", got)
		}
		if b := got[1]; b.Subscribers != 2 || b.Snapshot.Len() != 3 || b.Events != 2 || b.Published < 2 || b.Published > 3 || b.Err != nil {
			t.Errorf("got %+v", b)
		}
		if a := got[0]; a.Subscribers != 1 || a.Snapshot.Len() != 0 || a.Events != 0 || a.Published != 1 {
			t.Errorf("got %+v", a)
		}
	})
}

// One request tells a service's endpoints and its config; what is followed already is not asked for
// again.
func TestSubscribeServiceFuncAsksOnce(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		for i, row := range []struct{ txns, gets int }{{1, 0}, {1, 1}, {1, 2}} {
			service := fmt.Sprintf("svc-%d", i)
			store.Put(service+"/a", `{"Addr":"a:1"}`)
			store.Put(rollcall.ConfigPrefix+service, `{"a":1}`)
			synctest.Wait()
			var config configLog
			var instances []int
			if _, _, err := d.SubscribeServiceFunc(service, func(snap *rollcall.Snapshot, _ error) { instances = append(instances, snap.Len()) }, config.deliver); err != nil {
				t.Fatal(err)
			}
			config.want(t, `{"a":1}`)
			if !slices.Equal(instances, []int{1}) {
				t.Errorf("told of %v instances, want 1", instances)
			}
			if txns, gets := conn.Calls(fakeetcd.Txn), conn.Calls(fakeetcd.Get); txns != row.txns || gets != row.gets {
				t.Errorf("%d transactions and %d ranges for %d services, want %d and %d", txns, gets, i+1, row.txns, row.gets)
			}
		}
	})
}

func TestSubscribeServiceFuncFails(t *testing.T) {
	bubble(t, func(t *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		snap, config := func(*rollcall.Snapshot, error) {}, func(*rollcall.ServiceConfig, error) {}
		subscribe := func(service string, snap func(*rollcall.Snapshot, error), config func(*rollcall.ServiceConfig, error)) error {
			_, _, err := d.SubscribeServiceFunc(service, snap, config)
			return err
		}
		for what, err := range map[string]error{"name": subscribe("", snap, config), "no function": subscribe("svc", nil, config), "no function for configs": subscribe("svc", snap, nil)} {
			if !errors.As(err, new(*rollcall.InputError)) {
				t.Errorf("%s: %v", what, err)
			}
		}
		d.Close()
		if err := subscribe("svc", snap, config); !errors.Is(err, rollcall.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}
