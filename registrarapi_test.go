// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// An update keeps the mark of Drain; Undrain takes it away, and nothing else.
func TestUpdateKeepsTheDrainMarkUntilUndrain(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", map[string]int{"weight": 1})
		d.noError("undrain what is not drained", a.Undrain(d.within(time.Minute)))
		d.noError("drain", a.Drain(d.within(time.Minute)))
		d.noError("update", a.Update(d.within(time.Minute), map[string]int{"weight": 2}))
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining","weight":2}}`)
		d.phase(a, Draining, nil)
		var input *InputError
		if err := a.Update(d.within(time.Minute), "blue"); !errors.As(err, &input) {
			t.Errorf("metadata that cannot carry the mark: %v, want an *InputError", err)
		}
		d.store.ExpireLease(d.lease())
		time.Sleep(10 * time.Second)
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining","weight":2}}`)
		d.noError("undrain", a.Undrain(d.within(time.Minute)))
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":2}}`)
		d.phase(a, Registered, nil)
		// Metadata that has the mark of itself keeps it.
		d.noError("update", a.Update(d.within(time.Minute), map[string]string{"status": "draining"}))
		d.noError("undrain", a.Undrain(d.within(time.Minute)))
		d.phase(a, Draining, nil)
		d.noError("update", a.Update(d.within(time.Minute), nil))
		d.phase(a, Registered, nil)
	})
}

// An operator's status is the operator's: Undrain leaves it. Of a program's drain and an
// operator's undrain the later one counts.
func TestOperatorsStatusBesideDrain(t *testing.T) {
	const draining = `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining"}}`
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.put(a.Key(), draining, d.lease())
		time.Sleep(time.Second)
		d.noError("undrain", a.Undrain(d.within(time.Minute)))
		d.holds(a, draining)
		d.phase(a, Draining, nil)
		d.put(a.Key(), plain("a"), d.lease())
		time.Sleep(time.Second)
		d.phase(a, Registered, nil)

		d.noError("drain", a.Drain(d.within(time.Minute)))
		d.put(a.Key(), plain("a"), d.lease())
		time.Sleep(time.Second)
		d.holds(a, plain("a"))
		if state, _ := a.State(); state.Phase != Registered || state.Draining {
			t.Errorf("after an operator's undrain: %+v", state)
		}
		d.noError("update", a.Update(d.within(time.Minute), nil))
		d.holds(a, plain("a"))
		d.noError("drain again", a.Drain(d.within(time.Minute)))
		d.holds(a, draining)
		d.noError("undrain", a.Undrain(d.within(time.Minute)))
		d.holds(a, plain("a"))
	})
}

// An operator who drains what the program drains already is heard: it stays drained when the
// program undrains it. An edit of something else is no drain.
func TestOperatorsDrainBesideTheSameDrain(t *testing.T) {
	const draining = `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining"}}`
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.noError("drain", a.Drain(d.within(time.Minute)))
		d.holds(a, draining)
		d.put(a.Key(), draining, d.lease())
		time.Sleep(time.Second)
		d.noError("undrain", a.Undrain(d.within(time.Minute)))
		d.holds(a, draining)
		d.phase(a, Draining, nil)
		d.put(a.Key(), plain("a"), d.lease())
		time.Sleep(time.Second)
		d.phase(a, Registered, nil)

		d.noError("drain", a.Drain(d.within(time.Minute)))
		d.put(a.Key(), `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining","weight":2}}`, d.lease())
		time.Sleep(time.Second)
		d.noError("undrain", a.Undrain(d.within(time.Minute)))
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":2}}`)
	})
}

// Draining is known in any phase, also while etcd cannot be reached.
func TestStateTellsDrainingDuringAnOutage(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a, b := d.registered("a", nil), d.registered("b", nil)
		d.noError("drain", a.Drain(d.within(time.Minute)))
		d.conn.Cut()
		time.Sleep(time.Minute)
		_ = b.Drain(d.within(time.Second))
		for _, g := range []*Registration{a, b} {
			if state, _ := g.State(); state.Phase != Lost || !state.Draining {
				t.Errorf("%s: %+v, want lost and draining", g.Key(), state)
			}
		}
		_ = b.Undrain(d.within(time.Second))
		if state, _ := b.State(); state.Draining {
			t.Errorf("undrained: %+v", state)
		}
		d.conn.Mend()
	})
}

// Close begins what Shutdown waits for.
func TestCloseOfARegistrationGoesOnBehind(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		stays := d.registered("stays", nil)
		began := time.Now()
		a.Close()
		a.Close()
		if took := time.Since(began); took != 0 {
			t.Errorf("close took %v", took)
		}
		if err := a.Update(d.within(time.Second), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("update after close: %v, want ErrClosed", err)
		}
		synctest.Wait()
		if kv := d.key(a.Key()); kv != nil {
			t.Errorf("left: %v", kv)
		}
		d.phase(a, Closed, nil)
		d.noError("shutdown after close", a.Shutdown(d.within(time.Second)))
		d.holds(stays, plain("stays"))
	})
}

// Close of a registrar takes a second at most, whatever etcd does, and joins what runs.
func TestCloseOfARegistrarIsShort(t *testing.T) {
	for name, row := range map[string]struct {
		fault func(d *registrarEnv)
		ok    bool   // etcd answers in time
		warns string // "": of nothing
	}{
		"etcd answers": {func(*registrarEnv) {}, true, ""},
		"etcd is slow": {func(d *registrarEnv) {
			d.conn.SetHook(func(context.Context, fakeetcd.Call) error { time.Sleep(50 * time.Millisecond); return nil })
		}, true, ""},
		"etcd is away": {func(d *registrarEnv) { d.conn.Cut() }, false, "goes when its lease ends"},
		"etcd refuses": {func(d *registrarEnv) { d.conn.Fail(fakeetcd.Txn, rpctypes.ErrPermissionDenied) }, true, "revoking the lease removed them"},
		"the lease cannot be revoked": {func(d *registrarEnv) {
			d.conn.SetHook(func(ctx context.Context, call fakeetcd.Call) error {
				if call.Method == fakeetcd.Revoke {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			})
		}, true, "lease not revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			withRegistrar(t, RegistrarOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(d *registrarEnv) {
				a := d.registered("a", nil)
				b := d.registered("b", nil)
				row.fault(d)
				began := time.Now()
				d.registrar.Close()
				if took := time.Since(began); took > time.Second {
					t.Errorf("close took %v", took)
				}
				for _, g := range []*Registration{a, b} {
					if state, _ := g.State(); state.Phase != Closed {
						t.Errorf("%s is %+v", g.Key(), state)
					}
				}
				synctest.Wait()
				if left := d.store.Values(); row.ok != (len(left) == 0) {
					t.Errorf("left: %v", left)
				}
				warnings := slices.DeleteFunc(strings.Split(log.String(), "\n"), func(line string) bool { return !strings.Contains(line, "level=WARN") })
				if (row.warns == "") != (len(warnings) == 0) || !strings.Contains(strings.Join(warnings, "\n"), row.warns) {
					t.Errorf("warned of %q, want %q", warnings, row.warns)
				}
				d.conn.SetHook(nil)
				d.registrar.Close()
			})
		})
	}
}

// A server that may not write what it registers can be stopped at once.
func TestShutdownDoesNotWaitForTheRight(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.Fail(fakeetcd.Txn, rpctypes.ErrPermissionDenied)
		b := d.register("b", nil)
		time.Sleep(time.Second)
		began := time.Now()
		if err := d.registrar.Shutdown(context.Background()); !errors.Is(err, rpctypes.ErrPermissionDenied) || !strings.Contains(err.Error(), "svc/") {
			t.Errorf("got %v, want what is not permitted", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("shutdown took %v", took)
		}
		if left := d.store.Values(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		for _, g := range []*Registration{a, b} {
			if state, _ := g.State(); state.Phase != Closed {
				t.Errorf("%s is %+v", g.Key(), state)
			}
		}
	})
}

// A Close does not let a Shutdown that waits report what has not been done.
func TestShutdownTellsOfAnUnfinishedClose(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.Cut()
		shut := make(chan error, 1)
		go func() { shut <- a.Shutdown(context.Background()) }()
		synctest.Wait()
		d.registrar.Close()
		if err := <-shut; !errors.Is(err, ErrClosed) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want ErrClosed and why", err)
		}
	})
}

// Stats tell leases and their losses by cause, renewals, writes and what failed.
func TestRegistrarStats(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: 10 * time.Second}, func(d *registrarEnv) {
		if s := d.registrar.Stats(); len(s.Registrations) != 0 || s.Lease != 0 || s.Leases != 0 || !s.LeasedAt.IsZero() {
			t.Errorf("before the first registration: %+v", s)
		}
		began := time.Now()
		b, a := d.registered("b", nil), d.registered("a", nil)
		d.noError("drain", b.Drain(d.within(time.Minute)))
		time.Sleep(time.Minute)
		s := d.registrar.Stats()
		if s.Lease != d.lease() || s.TTL != 10*time.Second || s.LeasedAt != began || s.Leases != 1 || s.Renewals < 10 ||
			s.Writes != 3 || s.WriteFailures != 0 || s.Phases[Registered] != 1 || s.Phases[Draining] != 1 {
			t.Errorf("after a minute: %+v", s)
		}
		var listed []string
		for _, g := range s.Registrations {
			listed = append(listed, fmt.Sprintln(g.Service, g.ID, g.Key, g.State.Phase))
		}
		if want := []string{"svc a svc/a registered\n", "svc b svc/b draining\n"}; !slices.Equal(listed, want) {
			t.Errorf("got %q, want %q", listed, want)
		}
		d.store.ExpireLease(d.lease())
		time.Sleep(20 * time.Second)
		d.conn.Cut()
		time.Sleep(time.Minute)
		if s := d.registrar.Stats(); s.Phases[Lost] != 2 || s.LeasesUnrenewed == 0 {
			t.Errorf("during an outage: %+v", s)
		}
		d.conn.Mend()
		d.noError("wait", a.Wait(d.within(time.Minute)))
		if s := d.registrar.Stats(); s.LeasesExpired != 2 || s.Leases != 3 {
			t.Errorf("after two expired leases: %+v", s)
		}
		d.conn.Fail(fakeetcd.Txn, rpctypes.ErrNoSpace)
		_ = a.Update(d.within(time.Second), map[string]int{"weight": 1})
		d.conn.Fail(fakeetcd.Txn, nil)
		d.noError("wait", a.Wait(d.within(time.Minute)))
		if s := d.registrar.Stats(); s.WriteFailures == 0 || s.Writes <= s.WriteFailures {
			t.Errorf("after a refusal: %+v", s)
		}
		before := d.registrar.Stats()
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			for _, put := range puts(call.Request) {
				if string(put.Key) == "svc/late" {
					return context.DeadlineExceeded
				}
			}
			return nil
		})
		late := d.register("late", nil)
		time.Sleep(time.Second)
		d.noError("shutdown", late.Shutdown(d.within(time.Minute)))
		if s := d.registrar.Stats(); s.LeasesReplaced != before.LeasesReplaced+1 || s.Leases != before.Leases+1 {
			t.Errorf("after a fence: %+v, was %+v", s, before)
		}
		d.conn.SetHook(nil)
		d.registrar.Close()
		if s := d.registrar.Stats(); len(s.Registrations) != 0 || s.Lease != 0 || s.TTL != 0 || s.Leases != before.Leases+1 {
			t.Errorf("closed: %+v", s)
		}
	})
}
