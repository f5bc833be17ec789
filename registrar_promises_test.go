// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What ARCHITECTURE.md promises of a registration, a test each.

func TestRegistrationComesBackUnderItsKeyAfterAnyLoss(t *testing.T) {
	for name, lose := range map[string]func(d *registrarEnv, key string){
		"key deleted":         func(d *registrarEnv, key string) { d.store.Delete(key) },
		"key overwritten":     func(d *registrarEnv, key string) { d.put(key, "no endpoint", d.lease()) },
		"put without a lease": func(d *registrarEnv, key string) { d.store.Put(key, plain("a")) },
		"lease expired":       func(d *registrarEnv, _ string) { d.store.ExpireLease(d.lease()) },
		"data lost":           func(d *registrarEnv, _ string) { d.store.Wipe() },
		"older data restored": func(d *registrarEnv, key string) {
			backup := d.store.Snapshot()
			d.store.Delete(key)
			d.store.Restore(backup, 0)
		},
		"an outage":            func(d *registrarEnv, _ string) { d.conn.Cut(); time.Sleep(time.Hour); d.conn.Mend() },
		"streams broken":       func(d *registrarEnv, key string) { d.conn.BreakStreams(); d.store.Delete(key) },
		"outage and data lost": func(d *registrarEnv, _ string) { d.conn.Cut(); d.store.Wipe(); time.Sleep(time.Hour); d.conn.Mend() },
		"a successor that goes": func(d *registrarEnv, key string) {
			grant, err := d.other.Grant(d.within(time.Second), 5)
			d.noError("grant", err)
			d.put(key, plain("successor"), grant.ID)
		},
	} {
		t.Run(name, func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
				a := d.registered("a", nil)
				lose(d, a.Key())
				time.Sleep(30 * time.Second)
				d.holds(a, plain("a"))
				d.phase(a, Registered, nil)
				if left := d.store.Values(); len(left) != 1 {
					t.Errorf("etcd holds %v, want one key", left)
				}
			})
		})
	}
}

func TestRegistrationYieldsToASuccessor(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		grant, err := d.other.Grant(d.within(time.Second), 3600)
		d.noError("grant", err)
		revision := d.put(a.Key(), plain("successor"), grant.ID)
		_ = a.Update(d.within(time.Second), map[string]int{"weight": 2})
		time.Sleep(time.Minute)
		d.phase(a, Lost, ErrSuperseded)
		if kv := d.key(a.Key()); kv == nil || kv.ModRevision != revision {
			t.Errorf("the successor's key became %v", kv)
		}
	})
}

func TestRegistrationKeepsAnOperatorsEdit(t *testing.T) {
	const edited = `{"Op":0,"Addr":"host-a:80","Metadata":{"version":"1","weight":9}}`
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		a := d.registered("a", map[string]string{"version": "1"})
		d.put(a.Key(), edited, d.lease())
		time.Sleep(time.Second)
		d.store.Delete(a.Key())
		time.Sleep(time.Second)
		d.holds(a, edited)
		d.store.ExpireLease(d.lease())
		time.Sleep(30 * time.Second)
		d.holds(a, edited)
		d.noError("update", a.Update(d.within(time.Minute), map[string]string{"version": "2"}))
		d.holds(a, strings.Replace(edited, `"1"`, `"2"`, 1))
	})
}

func TestRegistrationDeletesOnlyWhatIsUnderItsLease(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		grant, err := d.other.Grant(d.within(time.Second), 3600)
		d.noError("grant", err)
		a, b := d.registered("a", nil), d.registered("b", nil)
		d.put(a.Key(), plain("another"), grant.ID)
		d.put(b.Key(), plain("another"), d.lease())
		d.noError("shutdown", a.Shutdown(d.within(time.Minute)))
		d.noError("shutdown", b.Shutdown(d.within(time.Minute)))
		if left := d.store.Values(); len(left) != 1 || left["svc/a"] != plain("another") {
			t.Errorf("left: %v, want the successor's alone", left)
		}
	})
}

func TestRegistrationDrainsBeforeItLeaves(t *testing.T) {
	for name, leave := range map[string]func(d *registrarEnv, g *Registration){
		"shutdown": func(d *registrarEnv, g *Registration) { d.noError("shutdown", g.Shutdown(d.within(time.Minute))) },
		"close":    func(_ *registrarEnv, g *Registration) { g.Close() },
		"shutdown of the registrar": func(d *registrarEnv, _ *Registration) {
			d.noError("shutdown", d.registrar.Shutdown(d.within(time.Minute)))
		},
		"close of the registrar": func(d *registrarEnv, _ *Registration) { d.registrar.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
				a := d.registered("a", nil)
				events := d.other.Watch(d.within(time.Minute), a.Key())
				synctest.Wait()
				leave(d, a)
				synctest.Wait()
				var got []string
				for len(events) > 0 {
					for _, ev := range (<-events).Events {
						got = append(got, ev.Type.String()+" "+statusOf(ev.Kv.Value))
					}
				}
				if want := []string{"PUT draining", "DELETE "}; !slices.Equal(got, want) {
					t.Errorf("events %q, want %q", got, want)
				}
			})
		})
	}
}
