// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

// logged runs a test of a Registrar, with what it and its Directory log.
func logged(t *testing.T, level slog.Level, test func(d *registrarEnv, lines *logtest.Buffer)) {
	t.Helper()
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		var lines logtest.Buffer
		d.registrar.directory.SetLogger(lines.Logger(level))
		test(d, &lines)
	})
}

// logsOnce fails unless what was logged since the last call is one line with these parts.
func (d *registrarEnv) logsOnce(lines *logtest.Buffer, parts ...string) {
	d.Helper()
	synctest.Wait()
	got := lines.Take()
	for _, part := range parts {
		if strings.Count(got, "\n") != 1 || !strings.Contains(got, part) {
			d.Fatalf("logged %q, want one line with %q", got, parts)
		}
	}
}

// Endpoints that come, change and go are logged one by one for those who ask for details, up to a
// bound, and not at all for others.
func TestEndpointsAreLogged(t *testing.T) {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo} {
		t.Run(level.String(), func(t *testing.T) {
			logged(t, level, func(d *registrarEnv, lines *logtest.Buffer) {
				for i := range 25 {
					d.store.Put(fmt.Sprintf("svc/%02d", i), `{"Addr":"a:1"}`)
				}
				sub, err := d.registrar.directory.Subscribe("svc")
				d.noError("subscribe", err)
				defer sub.Close()
				time.Sleep(time.Second)
				first := lines.Take()
				if level == slog.LevelInfo {
					d.store.Delete("svc/00")
					time.Sleep(time.Second)
					if got := first + lines.Take(); got != "" {
						t.Errorf("logged %q", got)
					}
					return
				}
				if n := strings.Count(first, `msg="endpoint came" key=svc/`); n != maxLogged ||
					!strings.Contains(first, `msg="more endpoints came, changed or went" prefix=svc/ count=5`) {
					t.Errorf("logged %d lines for 25 endpoints: %s", n, first)
				}
				for _, step := range []struct {
					change func() int64
					want   string
				}{
					{func() int64 { return d.store.Put("svc/x", `{"Addr":"x:1"}`) }, `level=DEBUG msg="endpoint came" key=svc/x addr=x:1 status=serving revision=27`},
					{func() int64 { return d.store.Put("svc/x", `{"Addr":"x:1","Metadata":{"status":"draining"}}`) }, `msg="endpoint changed" key=svc/x addr=x:1 status=draining revision=28`},
					{func() int64 { return d.store.Put("svc/x", `broken`) }, `msg="endpoint went" key=svc/x addr=x:1 status=draining lastRevision=28`},
					{func() int64 { return d.store.Put("svc/x", `{"Addr":"x:2"}`) }, `msg="endpoint came" key=svc/x addr=x:2 status=serving revision=30`},
					{func() int64 { return d.store.Delete("svc/x") }, `msg="endpoint went" key=svc/x addr=x:2 status=serving lastRevision=30`},
				} {
					step.change()
					time.Sleep(time.Second)
					d.logsOnce(lines, step.want)
				}
			})
		})
	}
}

// A newcomer that takes a key over tells from whom.
func TestTakeoverIsLogged(t *testing.T) {
	logged(t, slog.LevelInfo, func(d *registrarEnv, lines *logtest.Buffer) {
		lease, err := d.other.Grant(d.within(time.Second), 60)
		d.noError("grant", err)
		d.put("svc/a", plain("a"), lease.ID)
		d.put("svc/b", plain("b"), clientv3.NoLease)
		d.registered("a", nil)
		d.logsOnce(lines, fmt.Sprintf(`level=INFO msg="registered; took the key over" key=svc/a lease=%x cause="it was under another lease, %x"`, d.lease(), lease.ID))
		d.registered("b", nil)
		d.logsOnce(lines, `msg="registered; took the key over" key=svc/b `, `cause="it was there without a lease"`)
		c := d.registered("c", nil)
		d.logsOnce(lines, `msg=registered key=svc/c `)
		d.noError("shutdown", c.Shutdown(d.within(time.Second)))
		d.logsOnce(lines, `msg=deregistered key=svc/c `)
		d.registered("c", nil) // its own key
		d.logsOnce(lines, `msg=registered key=svc/c `)
	})
}

// A lease that etcd does not have any more is not one that could not be renewed.
func TestLostLeaseIsLogged(t *testing.T) {
	logged(t, slog.LevelInfo, func(d *registrarEnv, lines *logtest.Buffer) {
		for _, after := range []time.Duration{time.Millisecond, time.Minute} { // before the first renewal, and later
			g := d.registered("a", nil)
			lines.Take()
			time.Sleep(after)
			lease := d.lease()
			d.store.ExpireLease(lease)
			time.Sleep(20 * time.Second)
			synctest.Wait()
			got := lines.Take()
			if !strings.Contains(got, "requested lease not found") || strings.Contains(got, "not renewed") || !strings.Contains(got, `msg="registered again"`) {
				t.Errorf("expired %v after it was registered: logged %q", after, got)
			}
			d.noError("shutdown", g.Shutdown(d.within(time.Second)))
		}
		if n := d.registrar.Stats().LeasesUnrenewed; n != 0 {
			t.Errorf("%d leases count as not renewed", n)
		}
	})
}

// What is removed while it is being written is not said to be registered.
func TestRemovedWhileWritten(t *testing.T) {
	logged(t, slog.LevelInfo, func(d *registrarEnv, lines *logtest.Buffer) {
		written := make(chan struct{})
		d.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if len(puts(call.Request)) > 0 {
				<-written
			}
			return nil
		})
		g := d.register("a", nil)
		time.Sleep(time.Second)
		g.Close()
		close(written)
		time.Sleep(time.Second)
		d.logsOnce(lines, `msg=deregistered key=svc/a `)
	})
}
