// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"pgregory.net/rapid"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// onPut calls f once, right before the put of a key whose compare has, or has not, seen the key.
func (d *registrarEnv) onPut(key string, exists bool, f func()) {
	d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
		for _, txn := range steps(call.Request) {
			if string(txn.Compare[0].Key) == key && txn.Compare[0].GetModRevision() != 0 == exists && txn.Success[0].GetRequestPut() != nil {
				d.conn.SetHook(nil)
				f()
			}
		}
		return nil
	})
}

// A registration that was never confirmed does not rely on what it read before: a write
// without an answer may have changed the key since.
func TestChangeTakenBackBeforeTheFirstConfirmation(t *testing.T) {
	weight := map[string]int{"weight": 2}
	for name, row := range map[string]struct {
		change, back func(*Registration, context.Context) error
	}{
		"update": {
			func(g *Registration, ctx context.Context) error { return g.Update(ctx, weight) },
			func(g *Registration, ctx context.Context) error { return g.Update(ctx, nil) },
		},
		"drain": {(*Registration).Drain, (*Registration).Undrain},
	} {
		t.Run(name, func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
				d.registered("stays", nil)
				d.conn.LoseAnswers(1)
				a := d.register("a", nil)
				synctest.Wait()
				d.onPut(a.Key(), true, func() { d.conn.LoseAnswers(1) })
				d.noError(name, ignore(row.change(a, d.within(7*time.Second)), context.DeadlineExceeded))
				if kv := d.key(a.Key()); kv == nil || kv.Version != 2 {
					t.Fatalf("the test shows nothing: the key is %v", kv)
				}
				d.noError("taking it back", row.back(a, d.within(time.Minute)))
				d.holds(a, plain("a"))
				d.phase(a, Registered, nil)
			})
		})
	}
}

// A write without an answer that has been taken back cannot happen later.
func TestChangeTakenBackBeforeItLands(t *testing.T) {
	withRegistrar(t, RegistrarOptions{TTL: time.Minute}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.DelayWrites(1)
		d.noError("update", ignore(a.Update(d.within(time.Second), map[string]int{"weight": 2}), context.DeadlineExceeded))
		d.noError("taking it back", a.Update(d.within(time.Minute), nil))
		d.conn.Land()
		time.Sleep(time.Minute)
		d.holds(a, plain("a"))
		if kv := d.key(a.Key()); kv.Version != 2 {
			t.Errorf("the key is %v, want one more write", kv)
		}
	})
}

// A change that etcd has refused can be taken back while etcd refuses every write.
func TestRefusedChangeTakenBack(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		d.conn.Fail(fakeetcd.Txn, rpctypes.ErrNoSpace)
		if err := a.Update(d.within(time.Second), map[string]int{"weight": 2}); !errors.Is(err, rpctypes.ErrNoSpace) {
			t.Errorf("update: %v, want etcd's reason", err)
		}
		d.noError("taking it back", a.Update(d.within(time.Minute), nil))
		d.phase(a, Registered, nil)
	})
}

// lostAnswerSteps are what TestRegistrarWithLostAnswers does in any order.
var lostAnswerSteps = map[string]func(d *registrarEnv, g *Registration, want map[string]any, n int){
	"lose":  func(d *registrarEnv, _ *Registration, _ map[string]any, n int) { d.conn.LoseAnswers(n) },
	"delay": func(d *registrarEnv, _ *Registration, _ map[string]any, n int) { d.conn.DelayWrites(n) },
	"land":  func(d *registrarEnv, _ *Registration, _ map[string]any, _ int) { d.conn.Land() },
	"wait": func(_ *registrarEnv, _ *Registration, _ map[string]any, n int) {
		time.Sleep(time.Duration(n) * 3 * time.Second)
	},
	"update": func(d *registrarEnv, g *Registration, want map[string]any, n int) {
		want["weight"] = n
		_ = g.Update(d.within(time.Millisecond), map[string]int{"weight": n})
	},
	"drain": func(d *registrarEnv, g *Registration, want map[string]any, _ int) {
		want["status"] = StatusDraining
		_ = g.Drain(d.within(time.Millisecond))
	},
	"undrain": func(d *registrarEnv, g *Registration, want map[string]any, _ int) {
		delete(want, "status")
		_ = g.Undrain(d.within(time.Millisecond))
	},
	// An operator edits what the program has written, another field. (To write the same value again would
	// be to drain what drains already: TestOperatorsDrainBesideTheSameDrain.)
	"edit": func(d *registrarEnv, g *Registration, want map[string]any, _ int) {
		d.quiet(g)
		want["zone"] = fmt.Sprint(d.store.Revision())
		d.put(g.Key(), lostAnswersValue(want), d.lease())
	},
}

// quiet waits until nothing is under way.
func (d *registrarEnv) quiet(g *Registration) {
	d.Helper()
	d.conn.LoseAnswers(0)
	d.conn.Land()
	d.noError("wait", g.Wait(d.within(time.Minute)))
}

func lostAnswersValue(metadata map[string]any) string {
	data, _ := json.Marshal(metadata)
	return fmt.Sprintf(`{"Op":0,"Addr":"host-a:80","Metadata":%s}`, data)
}

// Whichever answers are lost and however late writes land, etcd ends up holding what the
// program wanted last, with an operator's edit.
func TestRegistrarWithLostAnswers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type step struct {
			Op string
			N  int
		}
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				rapid.SampledFrom([]string{"lose", "delay", "land", "wait", "wait", "update", "update", "drain", "undrain", "edit"}).Draw(rt, "op"),
				rapid.IntRange(1, 2).Draw(rt, "n"),
			}
		}), 1, 20).Draw(rt, "steps")
		lost := rapid.IntRange(0, 2).Draw(rt, "lost")
		var got, want string
		synctest.Test(t, func(t *testing.T) {
			d := newRegistrarEnv(t, RegistrarOptions{TTL: time.Minute})
			defer d.close()
			d.registered("stays", nil)
			wanted := map[string]any{"weight": 1}
			d.conn.LoseAnswers(lost)
			a := d.register("a", wanted)
			for _, s := range steps {
				lostAnswerSteps[s.Op](d, a, wanted, s.N)
			}
			d.quiet(a)
			time.Sleep(time.Minute)
			want = lostAnswersValue(wanted)
			if kv := d.key(a.Key()); kv != nil {
				got = string(kv.Value)
			}
		})
		if got != want {
			rt.Fatalf("etcd holds %s, want %s", got, want)
		}
	})
}
