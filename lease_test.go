// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// delayCreates has the creates of a key run into their deadlines, and returns what lets
// them land, reporting whether one did.
func (d *registrarEnv) delayCreates(key string) (land func() bool) {
	var late []*etcdserverpb.PutRequest
	d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
		for _, txn := range steps(call.Request) {
			if put := txn.Success[0].GetRequestPut(); put != nil && string(put.Key) == key && txn.Compare[0].GetModRevision() == 0 {
				late = append(late, put)
				return context.DeadlineExceeded
			}
		}
		return nil
	})
	return func() bool {
		d.conn.SetHook(nil)
		if len(late) == 0 {
			d.Fatal("no create was delayed")
		}
		for _, put := range late {
			resp, err := d.other.Txn(d.within(time.Second)).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
				Then(clientv3.OpPut(key, string(put.Value), clientv3.WithLease(clientv3.LeaseID(put.Lease)))).Commit()
			if err == nil && resp.Succeeded {
				return true
			}
		}
		return false
	}
}

// L13, in memory: what lives on is moved to another lease, with what an operator put
// under the old one, and only then the old one is revoked.
func TestL13LateCreate(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		stays := d.registered("stays", nil)
		old := d.lease()
		d.put("svc/operator", plain("operator"), old)
		land := d.delayCreates("svc/a")
		a := d.register("a", nil)
		time.Sleep(time.Second)
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		if land() {
			t.Error("a create landed after its registration was closed")
		}
		if d.lease() == old {
			t.Error("the lease is the same")
		}
		d.holds(stays, plain("stays"))
		d.phase(stays, Registered, nil)
		if kv := d.key("svc/operator"); kv == nil || clientv3.LeaseID(kv.Lease) != d.lease() {
			t.Errorf("what an operator put under the lease: %v", kv)
		}
		if leases := d.store.Leases(); len(leases) != 1 {
			t.Errorf("leases %v, want one", leases)
		}
	})
}

// A create that did land, as a look shows, costs no lease.
func TestL13LandedCreate(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		d.registered("stays", nil)
		lease := d.lease()
		d.conn.LoseAnswers(1)
		a := d.registered("a", nil)
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		if d.lease() != lease {
			t.Error("the lease was replaced without need")
		}
	})
}

// The last registration needs no other lease.
func TestL13LateCreateOfTheLast(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		land := d.delayCreates("svc/a")
		a := d.register("a", nil)
		time.Sleep(time.Second)
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		if land() {
			t.Error("a create landed after its registration was closed")
		}
		if leases := d.store.Leases(); len(leases) != 0 || d.conn.Calls(fakeetcd.Grant) != 1 {
			t.Errorf("leases %v after %d grants, want none after one", leases, d.conn.Calls(fakeetcd.Grant))
		}
		d.holds(d.registered("b", nil), plain("b"))
	})
}

// While a lease cannot be given up, it is kept alive for those that stand under it.
func TestL13LeaseThatCannotBeGivenUp(t *testing.T) {
	for name, fault := range map[string]func(d *registrarEnv, lift func()){
		"no other is granted": func(d *registrarEnv, lift func()) {
			d.conn.Fail(fakeetcd.Grant, rpctypes.ErrNoSpace)
			lift()
			d.conn.Fail(fakeetcd.Grant, nil)
		},
		"a key cannot be moved": func(d *registrarEnv, lift func()) {
			d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
				for _, put := range puts(call.Request) {
					if string(put.Key) == "svc/stays" {
						return rpctypes.ErrPermissionDenied
					}
				}
				return nil
			})
			lift()
			d.conn.SetHook(nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{TTL: 10 * time.Second}, func(d *registrarEnv) {
				stays := d.registered("stays", nil)
				old := d.lease()
				land := d.delayCreates("svc/a")
				a := d.register("a", nil)
				time.Sleep(time.Second)
				closed := make(chan error, 1)
				fault(d, func() {
					closed <- a.Shutdown(d.within(2 * time.Second))
					time.Sleep(time.Minute)
					if kv := d.key(stays.Key()); kv == nil || clientv3.LeaseID(kv.Lease) != old {
						t.Errorf("what stood under the old lease: %v", kv)
					}
					if state, _ := stays.State(); state.Phase != Registered {
						t.Errorf("state %v", state)
					}
				})
				if err := <-closed; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("close: %v, want the context's error, since a create may land", err)
				}
				d.noError("close", a.Shutdown(d.within(time.Minute)))
				if name == "no other is granted" && land() {
					t.Error("a create landed after its registration was closed")
				}
				d.noError("wait", stays.Wait(d.within(time.Minute)))
				d.holds(stays, plain("stays"))
			})
		})
	}
}

// What etcd holds under a lease of before goes as well: it is this registrar's.
func TestCloseDeletesUnderAFormerLease(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.registered("b", nil)
		first := d.lease()
		backup := d.store.Snapshot()
		d.store.ExpireLease(first)
		time.Sleep(10 * time.Second)
		second := d.lease()
		d.store.Restore(backup, 1000)
		// Restored is the key under the first lease, which lives again; the second is unknown.
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		if kv := d.key("svc/a"); kv != nil {
			t.Errorf("left under lease %x of %x, %x: %v", kv.Lease, int64(first), int64(second), kv)
		}
	})
}

// A registration that etcd refuses is tried again with a back-off of its own, whatever
// else happens.
func TestRefusedRegistrationBacksOff(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			for _, put := range puts(call.Request) {
				if string(put.Key) == "svc/denied" {
					return rpctypes.ErrPermissionDenied
				}
			}
			return nil
		})
		denied, busy := d.register("denied", nil), d.registered("busy", nil)
		time.Sleep(time.Minute)
		before := d.conn.Calls(fakeetcd.Txn)
		const updates = 300
		for i := range updates {
			d.noError("update", busy.Update(d.within(time.Second), map[string]int{"weight": i + 1}))
			time.Sleep(100 * time.Millisecond)
		}
		if n := d.conn.Calls(fakeetcd.Txn) - before - updates; n > 15 {
			t.Errorf("%d tries in 30 s, want one in 2.5 to 5 s", n)
		}
		d.phase(denied, Registering, rpctypes.ErrPermissionDenied)
		d.conn.SetHook(nil)
		d.noError("wait", denied.Wait(d.within(6*time.Second)))
	})
}

// A Registrar is made from a Directory alone, whose client and logger it uses.
func TestRegistrarOfADirectory(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		var log bytes.Buffer
		directory, err := NewDirectory(d.other, DirectoryOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		d.noError("directory", err)
		defer directory.Close()
		r, err := NewRegistrar(directory, RegistrarOptions{})
		d.noError("registrar", err)
		defer r.Close()
		g, err := r.Register("svc", Endpoint{Addr: "h:1"})
		d.noError("register", err)
		d.noError("wait", g.Wait(d.within(time.Minute)))
		synctest.Wait()
		if !strings.Contains(log.String(), "msg=registered key=svc/h:1") || d.conn.Calls(fakeetcd.Grant) != 0 {
			t.Errorf("%d grants by another client; logged:\n%s", d.conn.Calls(fakeetcd.Grant), &log)
		}
	})
}

// Without a bound of its caller's Close waits no longer than its own.
func TestCloseIsBounded(t *testing.T) {
	for name, end := range map[string]func(d *registrarEnv, g *Registration) error{
		"registration": func(_ *registrarEnv, g *Registration) error { return g.Shutdown(context.Background()) },
		"registrar":    func(d *registrarEnv, _ *Registration) error { return d.registrar.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
				a := d.registered("a", nil)
				d.conn.Cut()
				began := time.Now()
				if err := end(d, a); err == nil || !strings.Contains(err.Error(), "svc/a") {
					t.Errorf("close: %v, want an error that names the key", err)
				}
				if took := time.Since(began); took > shutdownTimeout+time.Second {
					t.Errorf("close took %v", took)
				}
			})
		})
	}
}

// A status that an operator set is remembered for as long as the registrar lives.
func TestOperatorsStatusOutlivesARegistration(t *testing.T) {
	const draining = `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining"}}`
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		d.registered("other", nil)
		a := d.registered("a", nil)
		d.put(a.Key(), draining, d.lease())
		time.Sleep(time.Second)
		for range 2 { // as serving does at a health flap
			d.noError("drain", a.Drain(d.within(time.Minute)))
			d.noError("close", a.Shutdown(d.within(time.Minute)))
			a = d.registered("a", nil)
			d.holds(a, draining)
			d.phase(a, Draining, nil)
		}
		d.put(a.Key(), plain("a"), d.lease())
		time.Sleep(time.Second)
		d.phase(a, Registered, nil)
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		a = d.registered("a", nil)
		d.holds(a, plain("a"))
		// The program's own drain is no operator's.
		d.noError("drain", a.Drain(d.within(time.Minute)))
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		d.holds(d.registered("a", nil), plain("a"))
	})
}

// A drain of the program's whose answer was lost is not taken for an operator's.
func TestLostAnswerIsNoOperatorsEdit(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.LoseAnswers(1)
		d.noError("drain", ignore(a.Drain(d.within(time.Second)), context.DeadlineExceeded))
		d.noError("undrain", a.Undrain(d.within(time.Minute)))
		d.holds(a, plain("a"))
		d.phase(a, Registered, nil)
	})
}

// The log has a line for what is lost and one for what is regained, with the key and a
// cause, however many registrations there are and however long it takes.
func TestRegistrarLog(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	said := func() []string {
		synctest.Wait()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		log.Reset()
		return lines
	}
	withRegistrar(t, RegistrarOptions{Logger: logger}, func(d *registrarEnv) {
		for i := range 30 {
			d.register(fmt.Sprint(i), nil)
		}
		time.Sleep(time.Second)
		said()
		d.conn.Cut()
		time.Sleep(10 * time.Minute)
		if lines := said(); len(lines) != 1 || !strings.Contains(lines[0], `level=WARN msg="registration lost" key=svc/`) ||
			!strings.Contains(lines[0], "andOthers=29") || !strings.Contains(lines[0], "lease was not renewed within 10s") {
			t.Errorf("an outage of 10 min: %q", lines)
		}
		d.conn.Mend()
		time.Sleep(10 * time.Second)
		if lines := said(); len(lines) != 1 || !strings.Contains(lines[0], `level=INFO msg="registered again" key=svc/`) ||
			!strings.Contains(lines[0], "andOthers=29") {
			t.Errorf("its end: %q", lines)
		}
		d.conn.Fail(fakeetcd.Txn, rpctypes.ErrPermissionDenied)
		d.store.Delete("svc/7")
		time.Sleep(10 * time.Minute)
		lines := said()
		for i, line := range lines {
			want := "still not registered"
			if i == 0 {
				want = "registration lost"
			}
			if !strings.Contains(line, want) || !strings.Contains(line, "key=svc/7 ") || !strings.Contains(line, "permission denied") {
				t.Errorf("rights revoked: %q, want %q", line, want)
			}
		}
		if len(lines) < 10 || len(lines) > 11 {
			t.Errorf("%d lines in 10 min of a refusal, want one, and one a minute", len(lines))
		}
		for i := range 30 {
			d.store.Delete(fmt.Sprint("svc/", i))
		}
		time.Sleep(20 * time.Second)
		said()
		d.conn.Fail(fakeetcd.Txn, nil)
		time.Sleep(20 * time.Second)
		if lines := said(); len(lines) > 2 || !strings.Contains(lines[len(lines)-1], `msg="registered again"`) {
			t.Errorf("the rights are back: %q, want one line for the first and one for all others", lines)
		}
	})
}

// L13: the create that is answered is not the one that is stuck.
func TestL13SecondCreateAnswered(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		d.registered("stays", nil)
		d.conn.DelayWrites(1)
		a := d.registered("a", nil)
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		d.conn.Land()
		if kv := d.key("svc/a"); kv != nil {
			t.Errorf("a create landed under lease %x after its registration was closed", kv.Lease)
		}
	})
}

// L13: a key that is registered anew while its last registration is being closed inherits
// what may still land.
func TestL13RegisteredAnew(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		d.registered("stays", nil)
		d.conn.DelayWrites(1)
		a := d.register("a", nil)
		time.Sleep(time.Second)
		d.conn.Cut()
		d.noError("close", ignore(a.Shutdown(d.within(3*time.Second)), context.DeadlineExceeded))
		d.conn.Mend()
		b := d.registered("a", nil)
		d.noError("close", b.Shutdown(d.within(time.Minute)))
		d.conn.Land()
		if kv := d.key("svc/a"); kv != nil {
			t.Errorf("a create landed under lease %x after its registration was closed", kv.Lease)
		}
	})
}

// L14: a retired lease that runs out takes what stood under it along.
func TestL14RetiredLeaseExpires(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: 10 * time.Second}, func(d *registrarEnv) {
		stays := d.registered("stays", nil)
		old := d.lease()
		d.delayCreates("svc/a")
		a := d.register("a", nil)
		time.Sleep(time.Second)
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			txn, ok := call.Request.(*etcdserverpb.TxnRequest)
			if call.Method == fakeetcd.Get && call.Key == stays.Key() || ok && strings.Contains(txn.String(), stays.Key()) {
				return rpctypes.ErrPermissionDenied
			}
			return nil
		})
		d.noError("close", ignore(a.Shutdown(d.within(2*time.Second)), context.DeadlineExceeded))
		d.phase(stays, Registered, rpctypes.ErrPermissionDenied) // under the old lease, which is kept alive
		d.store.ExpireLease(old)
		time.Sleep(20 * time.Second)
		if state, _ := stays.State(); state.Phase != Lost || state.Lease != 0 {
			t.Errorf("state %s under lease %x (%v), while etcd has no key", state.Phase, int64(state.Lease), state.Err)
		}
		d.conn.SetHook(nil)
		d.noError("wait", stays.Wait(d.within(time.Minute)))
		d.holds(stays, plain("stays"))
	})
}

// A lease that cannot be revoked, and writes that all fail, are tried again with a back-off,
// whatever else is done meanwhile.
func TestFailuresBackOff(t *testing.T) {
	busy := func(d *registrarEnv, g *Registration, m fakeetcd.Method) int {
		before := d.conn.Calls(m)
		for i := range 300 {
			_ = g.Update(d.within(100*time.Millisecond), map[string]int{"weight": i + 1})
			time.Sleep(100 * time.Millisecond)
		}
		return d.conn.Calls(m) - before
	}
	t.Run("revoke", func(t *testing.T) {
		withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
			g := d.registered("busy", nil)
			d.delayCreates("svc/a")
			a := d.register("a", nil)
			time.Sleep(time.Second)
			d.conn.Fail(fakeetcd.Revoke, rpctypes.ErrPermissionDenied)
			d.noError("close", ignore(a.Shutdown(d.within(7*time.Second)), context.DeadlineExceeded))
			time.Sleep(time.Minute)
			if n := busy(d, g, fakeetcd.Revoke); n > 20 {
				t.Errorf("%d tries to revoke in 30 s", n)
			}
			d.conn.Fail(fakeetcd.Revoke, nil)
			d.noError("close", a.Shutdown(d.within(time.Minute)))
		})
	})
	t.Run("writes", func(t *testing.T) {
		withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
			g := d.registered("busy", nil)
			d.conn.Fail(fakeetcd.Txn, rpctypes.ErrTimeout)
			if n := busy(d, g, fakeetcd.Txn); n > 120 {
				t.Errorf("%d writes in a minute", n)
			}
			d.conn.Fail(fakeetcd.Txn, nil)
		})
	})
}

// Close revokes every lease that it can.
func TestCloseRevokesAll(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		d.registered("stays", nil)
		old := d.lease()
		d.delayCreates("svc/a")
		a := d.register("a", nil)
		time.Sleep(time.Second)
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if call.Method == fakeetcd.Revoke && call.Lease == old {
				return rpctypes.ErrPermissionDenied
			}
			return nil
		})
		d.noError("close", ignore(a.Shutdown(d.within(2*time.Second)), context.DeadlineExceeded))
		if err := d.registrar.Shutdown(d.within(5 * time.Second)); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("close: %v, want why a lease was not revoked", err)
		}
		if leases := d.store.Leases(); len(leases) != 1 || leases[old].TTL == 0 {
			t.Errorf("leases left: %v, want the one that cannot be revoked", leases)
		}
	})
}

// The mark of a registration that is being closed is the program's own.
func TestOwnMarkIsNoOperatorsEdit(t *testing.T) {
	for name, fault := range map[string]func(d *registrarEnv){
		"its answer is lost": func(d *registrarEnv) { d.conn.LoseAnswers(1) },
		"the deletion fails": func(d *registrarEnv) {
			d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
				for _, txn := range steps(call.Request) {
					if txn.Success[0].GetRequestDeleteRange() != nil {
						d.conn.SetHook(nil)
						return rpctypes.ErrTimeout
					}
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
				d.registered("stays", nil)
				a := d.registered("a", nil)
				fault(d)
				d.noError("close", a.Shutdown(d.within(time.Minute)))
				d.holds(d.registered("a", nil), plain("a"))
			})
		})
	}
}

// Each of several writes that were not answered is the program's own.
func TestLateWritesAreNoOperatorsEdit(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.DelayWrites(2)
		d.noError("drain", ignore(a.Drain(d.within(firstTry/2)), context.DeadlineExceeded))
		d.noError("update", ignore(a.Update(d.within(firstTry), map[string]int{"weight": 1}), context.DeadlineExceeded))
		d.conn.Land()
		time.Sleep(time.Minute)
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining","weight":1}}`)
		d.noError("undrain", a.Undrain(d.within(time.Minute)))
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":1}}`)
		d.phase(a, Registered, nil)
	})
}

// What an operator has edited outlives a registration, as it does an update.
func TestOperatorsEditOutlivesARegistration(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		d.registered("stays", nil)
		a := d.registered("a", map[string]int{"weight": 2})
		d.put(a.Key(), `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":10}}`, d.lease())
		time.Sleep(time.Second)
		d.noError("drain", a.Drain(d.within(time.Minute)))
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		a = d.registered("a", map[string]any{"weight": 2, "version": "2"})
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"version":"2","weight":10}}`)
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		d.holds(d.registered("a", map[string]int{"weight": 3}), `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":3}}`)
	})
}

// "Deregistered" is said of what etcd has taken out, not of what a successor has.
func TestSupersededIsNotDeregistered(t *testing.T) {
	var log bytes.Buffer
	withRegistrar(t, RegistrarOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(d *registrarEnv) {
		d.registered("stays", nil)
		a := d.registered("a", nil)
		grant, err := d.other.Grant(d.within(time.Second), 3600)
		d.noError("grant", err)
		d.put(a.Key(), plain("successor"), grant.ID)
		time.Sleep(time.Second)
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		synctest.Wait()
		if strings.Contains(log.String(), "deregistered") {
			t.Errorf("the successor's key stands, and the log says:\n%s", log.String())
		}
	})
}

// A check of many keys asks for no values, which may be large.
func TestChecksAskForNoValues(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if call.End != "" {
				return rpctypes.ErrPermissionDenied
			}
			if txn, ok := call.Request.(*etcdserverpb.TxnRequest); ok && len(txn.Compare) == 0 {
				for _, op := range txn.Success {
					// The first pages of lists that begin together are asked for in one transaction,
					// too. They have a limit.
					if r := op.GetRequestRange(); !r.KeysOnly && r.Limit == 0 {
						t.Error("a check asks for values")
					}
				}
			}
			return nil
		})
		for i := range maxKeyWatches + 5 {
			d.registered(fmt.Sprint(i), nil)
		}
		before := d.conn.Calls(fakeetcd.Txn)
		time.Sleep(2 * verifyKeysEvery)
		if d.conn.Calls(fakeetcd.Txn) == before {
			t.Error("nothing was checked")
		}
		d.conn.SetHook(nil)
	})
}

// What an operator puts without a lease is the registration's, also when it is closed
// before it has heard of that.
func TestCloseAfterAPlainPut(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.put(a.Key(), plain("a"), clientv3.NoLease)
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		if kv := d.key(a.Key()); kv != nil {
			t.Errorf("left: %v", kv)
		}
	})
}
