// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

func TestContextsThatEnd(t *testing.T) {
	cause := errors.New("enough")
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.Cut()
		time.Sleep(20 * time.Second)
		for what, call := range map[string]func(context.Context) error{
			"update": func(ctx context.Context) error { return a.Update(ctx, map[string]int{"weight": 2}) },
			"drain":  a.Drain,
			"wait":   a.Wait,
		} {
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(time.Second, func() { cancel(cause) })
			if err := call(ctx); !errors.Is(err, cause) || !strings.Contains(err.Error(), "look up lease") {
				t.Errorf("%s: %v, want the context's cause and why the registration waits", what, err)
			}
		}
		// What was set is written as soon as etcd can be had.
		d.noError("update", ignore(a.Update(d.within(time.Second), map[string]int{"weight": 3}), context.DeadlineExceeded))
		d.conn.Mend()
		d.noError("wait", a.Wait(d.within(time.Minute)))
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining","weight":3}}`)
		// A shutdown goes on behind.
		d.conn.Cut()
		d.noError("close", ignore(a.Shutdown(d.within(time.Second)), context.DeadlineExceeded))
		d.conn.Mend()
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		if left := d.store.Values(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return fmt.Errorf("got %v, want %v", err, expected)
}

func TestStateTellsEveryPhase(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		d.conn.Cut()
		a := d.register("a", nil)
		var mu sync.Mutex
		var phases []Phase
		var watcher sync.WaitGroup
		watcher.Go(func() {
			for {
				state, changed := a.State()
				mu.Lock()
				if len(phases) == 0 || phases[len(phases)-1] != state.Phase {
					phases = append(phases, state.Phase)
				}
				mu.Unlock()
				if state.Phase == Closed {
					return
				}
				<-changed
			}
		})
		time.Sleep(10 * time.Second)
		d.conn.Mend()
		d.noError("wait", a.Wait(d.within(time.Minute)))
		since, _ := a.State()
		time.Sleep(time.Second)
		d.noError("update", a.Update(d.within(time.Minute), map[string]int{}))
		if state, _ := a.State(); state.Since != since.Since {
			t.Errorf("since %v after an update, was %v", state.Since, since.Since)
		}
		synctest.Wait()
		d.conn.Cut()
		time.Sleep(20 * time.Second)
		d.conn.Mend()
		time.Sleep(20 * time.Second)
		d.noError("drain", a.Drain(d.within(time.Minute)))
		synctest.Wait()
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		watcher.Wait()
		want := []Phase{Registering, Registered, Lost, Registered, Draining, Closed}
		if !slices.Equal(phases, want) {
			t.Errorf("got %v, want %v", phases, want)
		}
		state, _ := a.State()
		if state.Lease != 0 || state.TTL != 0 || state.Err != nil {
			t.Errorf("closed: %+v", state)
		}
	})
}

func TestUpdateIsOneEventUnderTheSameLease(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		lease := d.lease()
		before := d.key("svc/a")
		revision := d.store.Revision()
		d.noError("update", a.Update(d.within(time.Minute), map[string]int{"weight": 2}))
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":2}}`)
		kv := d.key("svc/a")
		if d.store.Revision() != revision+1 || kv.CreateRevision != before.CreateRevision || d.lease() != lease {
			t.Errorf("got %v at revision %d, was %v at %d", kv, d.store.Revision(), before, revision)
		}
		d.noError("the same again", a.Update(d.within(time.Minute), map[string]int{"weight": 2}))
		time.Sleep(time.Hour)
		if got := d.store.Revision(); got != revision+1 {
			t.Errorf("%d writes, want 1", got-revision)
		}
		var input *InputError
		if err := a.Update(d.within(time.Minute), make(chan int)); !errors.As(err, &input) {
			t.Errorf("metadata that is no JSON: %v", err)
		}
		d.noError("update", a.Update(d.within(time.Minute), "blue"))
		if err := a.Drain(d.within(time.Minute)); !errors.As(err, &input) {
			t.Errorf("draining with metadata that is no object: %v", err)
		}
		d.phase(a, Registered, nil)
	})
}

// L5, in memory: whose the key is decides what is done about it.
func TestL5KeyTouchedByOthers(t *testing.T) {
	const edited = `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining"}}`
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.store.Delete("svc/a")
		time.Sleep(time.Second)
		d.holds(a, plain("a"))

		for _, lease := range []clientv3.LeaseID{clientv3.NoLease, d.lease()} {
			d.put("svc/a", "no endpoint", lease)
			time.Sleep(time.Second)
			d.holds(a, plain("a"))
		}
		d.put("svc/a", plain("x"), clientv3.NoLease) // an operator's, taken as it is
		time.Sleep(time.Second)
		d.holds(a, plain("x"))

		d.put("svc/a", edited, d.lease())
		time.Sleep(time.Second)
		d.holds(a, edited)
		d.phase(a, Draining, nil)
		old := d.lease()
		d.store.ExpireLease(old)
		time.Sleep(10 * time.Second)
		if d.lease() == old {
			t.Fatal("still the old lease")
		}
		d.holds(a, edited)

		grant, err := d.other.Grant(d.within(time.Second), 3600)
		d.noError("grant", err)
		d.put("svc/a", plain("successor"), grant.ID)
		time.Sleep(time.Second)
		d.phase(a, Lost, ErrSuperseded)
		for range 3 { // a successor that goes on writing is left alone
			revision := d.put("svc/a", plain("successor"), grant.ID)
			time.Sleep(time.Second)
			if got := d.store.Revision(); got != revision {
				t.Errorf("%d writes to a successor's key", got-revision)
			}
		}
		if err := a.Update(d.within(time.Second), map[string]int{"weight": 2}); !errors.Is(err, ErrSuperseded) {
			t.Errorf("update while superseded: %v", err)
		}
		d.store.ExpireLease(d.lease()) // a lease of ours that is lost meanwhile changes nothing
		time.Sleep(10 * time.Second)
		d.phase(a, Lost, ErrSuperseded)
		d.store.ExpireLease(grant.ID)
		time.Sleep(time.Second)
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining","weight":2}}`) // the update that had to wait
		d.phase(a, Draining, nil)
	})
}

// L6, in memory: what is deleted is ours, also when an operator touched it.
func TestL6LateDeregistration(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a, b := d.registered("a", nil), d.registered("b", nil)
		grant, err := d.other.Grant(d.within(time.Second), 3600)
		d.noError("grant", err)
		// Neither is seen before the close: the calls of a decide by what stands there then.
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if call.Method == fakeetcd.Txn {
				d.conn.SetHook(nil)
				d.put("svc/a", plain("successor"), grant.ID)
			}
			return nil
		})
		d.noError("close a", a.Shutdown(d.within(time.Minute)))
		if kv := d.key("svc/a"); kv == nil || string(kv.Value) != plain("successor") {
			t.Errorf("the successor's key: %v", kv)
		}
		edits := 0
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if call.Method == fakeetcd.Txn {
				edits++
				d.put("svc/b", `{"Addr":"host-b:80","Metadata":{"weight":9}}`, d.lease())
			}
			return nil
		})
		d.noError("close b", b.Shutdown(d.within(time.Minute)))
		d.conn.SetHook(nil)
		if kv := d.key("svc/b"); kv != nil || edits < 2 {
			t.Errorf("after %d edits: %v", edits, kv)
		}
	})
}

// An edit between the look and the write is seen, whoever writes.
func TestWriteRacesWithAnEdit(t *testing.T) {
	const edited = `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":9}}`
	for _, row := range []struct {
		name  string
		call  func(g *Registration, ctx context.Context) error
		lease bool // the edit keeps the lease
		want  string
	}{
		{"an update wins", func(g *Registration, ctx context.Context) error {
			return g.Update(ctx, map[string]int{"weight": 2})
		}, true, `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":2}}`},
		{"an update over what lost its lease", func(g *Registration, ctx context.Context) error {
			return g.Update(ctx, map[string]int{"weight": 2})
		}, false, `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":2}}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
				a := d.registered("a", nil)
				raced := false
				d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
					if call.Method == fakeetcd.Txn && !raced {
						raced = true
						lease := clientv3.LeaseID(clientv3.NoLease)
						if row.lease {
							lease = d.lease()
						}
						d.put("svc/a", edited, lease)
					}
					return nil
				})
				d.noError("call", row.call(a, d.within(time.Minute)))
				time.Sleep(time.Second)
				d.holds(a, row.want)
			})
		})
	}
	t.Run("a healing keeps it", func(t *testing.T) {
		withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
			a := d.registered("a", nil)
			d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
				if call.Method == fakeetcd.Txn {
					d.conn.SetHook(nil)
					d.put("svc/a", edited, d.lease())
				}
				return nil
			})
			d.store.Delete("svc/a")
			time.Sleep(time.Second)
			d.holds(a, edited)
		})
	})
}

// A value set while the one before is on its way is written too.
func TestUpdateDuringAWrite(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		var a *Registration
		var second error
		var wg sync.WaitGroup
		registered := make(chan struct{}) // a is set
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if call.Method == fakeetcd.Txn {
				d.conn.SetHook(nil)
				<-registered
				wg.Go(func() { second = a.Update(d.within(time.Minute), map[string]int{"weight": 2}) })
				time.Sleep(time.Millisecond)
			}
			return nil
		})
		a = d.register("a", nil)
		close(registered)
		d.noError("wait", a.Wait(d.within(time.Minute)))
		wg.Wait()
		d.noError("update", second)
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":2}}`)
	})
}

// Closed is for good, also when a write that was under way ends later.
func TestCloseAndRegisterDuringAWrite(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		again := make(chan *Registration, 1)
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if call.Method == fakeetcd.Txn {
				d.conn.SetHook(nil)
				d.registrar.mu.Lock()
				first := d.registrar.regs["svc/a"]
				d.registrar.mu.Unlock()
				first.remove()
				again <- d.register("a", map[string]int{"weight": 2})
				d.phase(first, Closed, nil)
			}
			return nil
		})
		first, second := d.register("a", nil), <-again
		time.Sleep(time.Second)
		d.noError("wait", second.Wait(d.within(time.Minute)))
		d.phase(first, Closed, nil)
		d.holds(second, `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":2}}`)
	})
}

// Drain builds on the latest value: it takes nothing back that Update set before.
func TestDrainAfterUpdateKeepsTheMetadata(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.Cut()
		d.noError("update", ignore(a.Update(d.within(time.Second), map[string]int{"weight": 2}), context.DeadlineExceeded))
		d.noError("drain", ignore(a.Drain(d.within(time.Second)), context.DeadlineExceeded))
		d.conn.Mend()
		d.noError("wait", a.Wait(d.within(time.Minute)))
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining","weight":2}}`)
		d.phase(a, Draining, nil)
		revision := d.store.Revision()
		d.noError("close", a.Shutdown(d.within(time.Minute)))
		if got := d.store.Revision(); got != revision+1 {
			t.Errorf("%d writes to close what was marked already, want 1", got-revision)
		}
	})
}

// L5: Drain and Close mark what stands, an operator's edit included that nobody told of yet.
func TestMarkKeepsAnEdit(t *testing.T) {
	for name, end := range map[string]func(*Registration, context.Context) error{
		"drain": (*Registration).Drain,
		"close": (*Registration).Shutdown,
	} {
		t.Run(name, func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
				a := d.registered("a", map[string]int{"weight": 1})
				var marked string
				d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
					if call.Method == fakeetcd.Get && marked == "" {
						marked = "?"
						d.put("svc/a", `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":7}}`, d.lease())
					}
					for _, put := range puts(call.Request) {
						marked = string(put.Value)
					}
					return nil
				})
				d.noError(name, end(a, d.within(time.Minute)))
				if want := `{"Op":0,"Addr":"host-a:80","Metadata":{"status":"draining","weight":7}}`; marked != want {
					d.Errorf("marked as %s, want %s", marked, want)
				}
			})
		})
	}
}

// A write that etcd refuses takes nobody out who stands there under a lease that lives.
func TestRefusedWriteLeavesItRegistered(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.Fail(fakeetcd.Txn, rpctypes.ErrNoSpace)
		if err := a.Update(d.within(5*time.Second), map[string]int{"weight": 2}); !errors.Is(err, rpctypes.ErrNoSpace) {
			d.Errorf("update: %v", err)
		}
		if state, _ := a.State(); state.Phase != Registered || !errors.Is(state.Err, rpctypes.ErrNoSpace) {
			d.Errorf("state %v, %v", state.Phase, state.Err)
		}
		d.conn.Fail(fakeetcd.Txn, nil)
		d.noError("wait", a.Wait(d.within(time.Minute)))
		d.holds(a, `{"Op":0,"Addr":"host-a:80","Metadata":{"weight":2}}`)
	})
}
