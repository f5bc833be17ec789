// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

const (
	key      = "svc/a"
	serving  = `{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}`
	draining = `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"status":"draining"}}`
)

var errSick = errors.New("sick")

// env is an endpoint on an etcd in memory, in a bubble of virtual time. Its check passes unless it
// is sick.
type env struct {
	*testing.T
	store    *fakeetcd.Store
	conn     *fakeetcd.Conn
	endpoint *Endpoint
	sick     atomic.Bool
	events   []Kind // owned by Run; read after synctest.Wait
}

// run keeps an endpoint in a bubble for as long as a test takes.
func run(t *testing.T, opts Options, test func(e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &env{T: t, store: fakeetcd.New()}
		defer e.store.Close()
		e.conn = e.store.Connect(t.Context())
		directory, err := rollcall.SharedDirectory(e.conn.Client)
		if err != nil {
			t.Fatal(err)
		}
		if opts.Registrar, err = rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{NoOrigin: true}); err != nil {
			t.Fatal(err)
		}
		defer opts.Registrar.Close()
		opts.Service, opts.Endpoint = "svc", rollcall.Endpoint{ID: "a", Addr: "10.0.0.1:80"}
		opts.Checks = append(opts.Checks, Check{"test", func(context.Context) error {
			if e.sick.Load() {
				return errSick
			}
			return nil
		}})
		opts.Report = func(event Event) { e.events = append(e.events, event.Kind) }
		if e.endpoint, err = New(opts); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.endpoint.Run(ctx) }()
		test(e)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

// after lets time pass, and fails unless etcd then holds a value, "" for no key.
func (e *env) after(d time.Duration, want string) {
	e.Helper()
	time.Sleep(d)
	synctest.Wait()
	if got := e.store.Values()[key]; got != want {
		e.Fatalf("%s is %s, want %q", key, got, want)
	}
}

func (e *env) reported(want ...Kind) {
	e.Helper()
	synctest.Wait()
	if !slices.Equal(e.events, want) {
		e.Errorf("reported %v, want %v", e.events, want)
	}
}

func (e *env) unready(want string) {
	e.Helper()
	if err := e.endpoint.Status().Unready(); fmt.Sprint(err) != want {
		e.Errorf("unready: %v, want %s", err, want)
	}
}

// writes returns how often the key was written since it was created, and its lease.
func (e *env) writes() (n, lease int64) {
	all := e.store.KeyValues()
	i := slices.IndexFunc(all, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) == key })
	if i < 0 {
		return 0, 0
	}
	return all[i].Version, all[i].Lease
}

// By the defaults: two successes a second apart register it, three failures 5 s apart take it out,
// two successes let it return; the lease stays.
func TestEndpointFollowsItsChecks(t *testing.T) {
	run(t, Options{}, func(e *env) {
		e.sick.Store(true)
		e.after(10500*time.Millisecond, "")
		e.reported(Waiting)
		e.unready("its test check fails")
		e.sick.Store(false)
		e.after(time.Second, "") // at 11 s it has passed once
		e.after(time.Second, serving)
		e.reported(Waiting, Registering)
		e.unready("<nil>")
		_, lease := e.writes()

		e.sick.Store(true) // checked at 17, 22 and 27 s
		e.after(14*time.Second, serving)
		e.unready("<nil>")
		e.after(time.Second, draining)
		e.unready("draining: its test check fails")
		e.sick.Store(false) // at 32 and 37 s
		e.after(9*time.Second, draining)
		e.unready("draining")
		e.after(time.Second, serving)
		e.reported(Waiting, Registering, Leaving, Returning)
		if n, now := e.writes(); n != 3 || now != lease {
			e.Errorf("%d writes, lease %x, want 3 and %x", n, now, lease)
		}
	})
}

// A check that flaps for a minute writes at most 10 times, whatever the flags are.
func TestFlappingWritesAtMostTenTimes(t *testing.T) {
	for _, opts := range []Options{
		{Interval: 100 * time.Millisecond, Fall: 1, Rise: 1},
		{Interval: 500 * time.Millisecond, Fall: 1, Rise: 1},
		{Interval: 100 * time.Millisecond, Fall: 3, Rise: 2},
		{Interval: 700 * time.Millisecond, Fall: 1, Rise: 1},
		{Interval: time.Second, Fall: 1, Rise: 1},
		{},
	} {
		t.Run(fmt.Sprintf("every %v fall %d rise %d", opts.Interval, opts.Fall, opts.Rise), func(t *testing.T) {
			run(t, opts, func(e *env) {
				for i := range 60 {
					e.sick.Store(i%2 == 1)
					time.Sleep(time.Second)
				}
				synctest.Wait()
				n, _ := e.writes()
				if n > 10 || opts.Fall == 1 && opts.Interval <= 500*time.Millisecond && n < 8 {
					e.Errorf("%d writes in a minute, want at most 10: %v", n, e.events)
				}
				e.sick.Store(false)
				e.after(maxHoldDown+10*time.Second, serving)
			})
		})
	}
}

// What an operator has drained stays drained when the checks pass again, whichever came first.
func TestOperatorsDrainOutlivesChecks(t *testing.T) {
	for _, operatorFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("operator first %v", operatorFirst), func(t *testing.T) {
			run(t, Options{}, func(e *env) {
				e.after(2*time.Second, serving)
				other := e.store.Connect(e.Context()).Client
				write := func(value string) {
					if _, err := other.Put(e.Context(), key, value, clientv3.WithIgnoreLease()); err != nil {
						e.Fatal(err)
					}
				}
				if operatorFirst {
					write(draining)
				}
				e.sick.Store(true)
				e.after(20*time.Second, draining)
				if !operatorFirst {
					write(draining)
				}
				e.sick.Store(false)
				e.after(time.Minute, draining)
				e.unready("draining")
				write(serving)
				e.after(time.Minute, serving)
				e.unready("<nil>")
			})
		})
	}
}

// FailOpen keeps an endpoint in, for as long as it says so.
func TestFailOpen(t *testing.T) {
	var open atomic.Bool
	open.Store(true)
	run(t, Options{FailOpen: open.Load}, func(e *env) {
		e.after(2*time.Second, serving)
		e.sick.Store(true)
		e.after(time.Hour, serving)
		e.reported(Registering, FailedOpen)
		e.sick.Store(false)
		e.after(time.Minute, serving)
		e.sick.Store(true)
		e.after(time.Minute, serving)
		open.Store(false)
		e.after(6*time.Second, draining)
		e.reported(Registering, FailedOpen, Recovered, FailedOpen, Leaving)
	})
}

// Checks go on while etcd cannot be reached, and the registration catches up.
func TestChecksDuringAnOutage(t *testing.T) {
	run(t, Options{}, func(e *env) {
		e.after(2*time.Second, serving)
		e.conn.Cut()
		e.after(time.Minute, "") // its lease ends
		e.unready("<nil>")       // etcd's outage is none of the server
		e.sick.Store(true)
		time.Sleep(20 * time.Second)
		e.unready("draining: its test check fails")
		e.conn.Mend()
		e.after(30*time.Second, draining)
		e.conn.Cut()
		e.sick.Store(false)
		e.after(20*time.Second, "")
		e.conn.Mend()
		e.after(30*time.Second, serving)
	})
}

// Drain tells how long clients still need to move.
func TestDrainAndRemove(t *testing.T) {
	const given = 10 * time.Second
	for _, row := range []struct {
		name   string
		serves time.Duration // before it is sick
		sick   time.Duration // before the drain
		left   time.Duration
		want   string
	}{
		{"serving", time.Minute, 0, given, draining},
		{"not registered yet", 0, 0, 0, ""},
		{"unhealthy for 4 s", time.Minute, 15 * time.Second, 6 * time.Second, draining}, // checked at 1 min + 1, 6 and 11 s
		{"unhealthy for long", time.Minute, time.Minute, 0, draining},
	} {
		t.Run(row.name, func(t *testing.T) {
			run(t, Options{}, func(e *env) {
				time.Sleep(row.serves)
				e.sick.Store(row.sick > 0)
				time.Sleep(row.sick)
				synctest.Wait()
				left, err := e.endpoint.Drain(e.Context(), given)
				if err != nil || left.Round(time.Second) != row.left {
					e.Errorf("%v left, %v, want %v", left, err, row.left)
				}
				e.after(0, row.want)
				e.endpoint.Close()
				if err := e.endpoint.Remove(e.Context()); err != nil {
					e.Error(err)
				}
				e.after(0, "")
			})
		})
	}
}

// All checks must pass, and the first that fails is named.
func TestAllChecksMustPass(t *testing.T) {
	first := Check{"first", func(context.Context) error { return nil }}
	last := Check{"slow", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	run(t, Options{Checks: []Check{first, last}}, func(e *env) {
		e.after(time.Minute, "")
		e.unready("its slow check fails")
		if err := e.endpoint.Status().Err; fmt.Sprint(err) != "slow: no answer within 1s" {
			e.Error(err)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		directory, err := rollcall.SharedDirectory(store.Connect(t.Context()).Client)
		if err != nil {
			t.Fatal(err)
		}
		registrar, err := rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer registrar.Close()
		ep := rollcall.Endpoint{Addr: "10.0.0.1:80"}
		check := []Check{{text: "test"}}
		for want, opts := range map[string]Options{
			"Registrar is nil": {Service: "svc", Endpoint: ep},
			"address":          {Registrar: registrar, Service: "svc"},
			"service":          {Registrar: registrar, Endpoint: ep},
			"interval":         {Registrar: registrar, Service: "svc", Endpoint: ep, Interval: time.Millisecond},
			"timeout":          {Registrar: registrar, Service: "svc", Endpoint: ep, Timeout: -1},
			"fall":             {Registrar: registrar, Service: "svc", Endpoint: ep, Fall: -1},
			"rise":             {Registrar: registrar, Service: "svc", Endpoint: ep, Rise: -1},
			"must be an object": {Registrar: registrar, Service: "svc", Checks: check,
				Endpoint: rollcall.Endpoint{Addr: "10.0.0.1:80", Metadata: "text"}},
		} {
			if _, err := New(opts); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		settings := Options{Interval: time.Millisecond, Timeout: time.Second, Rise: 1}
		err = settings.Validate() // of all, without a Registrar
		if text := fmt.Sprint(err); strings.Count(text, "\n") != 1 || !strings.Contains(text, "interval") || !strings.Contains(text, "fall") {
			t.Errorf("%v, want what is wrong with interval and fall", err)
		}
		// Without a check, the metadata need not carry a mark.
		if _, err := New(Options{Registrar: registrar, Service: "svc", Endpoint: rollcall.Endpoint{Addr: "10.0.0.1:80", Metadata: "text"}}); err != nil {
			t.Error(err)
		}
	})
}

// Without checks an endpoint is registered at once.
func TestNoChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		directory, err := rollcall.SharedDirectory(store.Connect(t.Context()).Client)
		if err != nil {
			t.Fatal(err)
		}
		registrar, err := rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer registrar.Close()
		endpoint, err := New(Options{Registrar: registrar, Service: "svc", Endpoint: rollcall.Endpoint{Addr: "10.0.0.1:80"}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- endpoint.Run(ctx) }()
		reg, err := endpoint.Registration(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := reg.Wait(t.Context()); err != nil || time.Since(began) > time.Second {
			t.Errorf("registered after %v: %v", time.Since(began), err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		cancelled, cancel := context.WithCancel(context.Background())
		cancel()
		if err := endpoint.Run(cancelled); err != nil {
			t.Errorf("ended at once: %v", err)
		}
	})
}

func TestEventText(t *testing.T) {
	until := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for kind := Waiting; kind <= Recovered; kind++ {
		event := Event{kind, "svc/a", errSick, until}
		text := event.String()
		if !strings.HasPrefix(text, `"svc/a" is `) || !strings.HasSuffix(text, ": sick") || (kind == Damped) != strings.Contains(text, "03:04:05") {
			t.Errorf("kind %d: %q", kind, text)
		}
		var logged logtest.Buffer
		event.Log(logged.Logger(slog.LevelDebug))
		if line := logged.String(); !strings.Contains(line, ` key=svc/a cause=sick`) || (kind == Damped) != strings.Contains(line, "until=2026-01-02T03:04:05") {
			t.Errorf("kind %d: %q", kind, line)
		}
	}
}
