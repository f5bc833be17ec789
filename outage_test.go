// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

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

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

// logLines collects what is logged, without the time.
type logLines struct{ logtest.Buffer }

func loggingDirectory(t *testing.T, conn *fakeetcd.Conn, lines *logLines) *rollcall.Directory {
	t.Helper()
	d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{Logger: lines.Logger(slog.LevelInfo)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// want compares the lines with what they are to be, after "level="; a "*" is any text.
func (l *logLines) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	got := strings.Split(strings.TrimSpace(l.String()), "\n")
	if !slices.EqualFunc(got, want, func(got, want string) bool {
		head, tail, any := strings.Cut("level="+want, "*")
		return got == head || any && strings.HasPrefix(got, head) && strings.HasSuffix(got, tail)
	}) {
		t.Errorf("logged:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// An outage is a line at its start, one a minute while it lasts, and one at its end, however
// many services there are.
func TestOutageIsLogged(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		const services = 20
		for i := range services {
			for _, id := range []string{"a", "b", "c"} {
				store.Put(fmt.Sprintf("svc-%d/%s", i, id), `{"Addr":"a:1"}`)
			}
		}
		var lines logLines
		d := loggingDirectory(t, conn, &lines)
		defer d.Close()
		for i := range services {
			deliver(t, d, fmt.Sprintf("svc-%d", i), func(*rollcall.Snapshot, error) {})
		}
		view, err := d.SubscribePrefix("svc-1") // of eleven services, which are followed besides
		if err != nil {
			t.Fatal(err)
		}
		defer view.Close()
		config, err := d.SubscribeServiceConfigFunc("svc-0", func(*rollcall.ServiceConfig, error) {})
		if err != nil {
			t.Fatal(err)
		}
		defer config.Close()
		time.Sleep(time.Second)
		conn.LoseLeader()
		time.Sleep(3*time.Minute + 30*time.Second)
		conn.FindLeader()
		time.Sleep(10 * time.Second)

		const rest = `serving="60 endpoints of 20 services as of revision 61" etcd="" cause="etcd at : etcdserver: no leader"`
		lines.want(t,
			`WARN msg="etcd unreachable" `+rest,
			`WARN msg="etcd still unreachable" for=1m0s `+rest,
			`WARN msg="etcd still unreachable" for=2m0s `+rest,
			`WARN msg="etcd still unreachable" for=3m0s `+rest,
			`INFO msg="etcd reachable again" etcd="" after=3m3*s`)
	})
}

// An outage is one, however many subscriptions come and go, and its end is logged when
// somebody looks.
func TestOutageOutlivesSubscriptions(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		var lines logLines
		d := loggingDirectory(t, conn, &lines)
		defer d.Close()
		visit := func(n int) {
			for range n {
				sub := subscribe(t, d, "svc")
				time.Sleep(400 * time.Millisecond)
				sub.Close()
				time.Sleep(100 * time.Millisecond)
			}
		}
		visit(1)
		conn.LoseLeader()
		visit(20)
		first := `WARN msg="etcd unreachable" etcd="" cause="etcd at : etcdserver: no leader"`
		lines.want(t, first)
		visit(120)
		conn.FindLeader()
		visit(2)
		again := `WARN msg="etcd still unreachable" for=1m0s etcd="" cause="etcd at : etcdserver: no leader"`
		lines.want(t, first, again, `INFO msg="etcd reachable again" etcd="" after=1m*s`)
	})
}

// A program that follows no service is told of no endpoints, and a login that is refused is
// called one.
func TestOutageHeadlines(t *testing.T) {
	const cause = `cause="etcd at : etcdserver: authentication failed, invalid user ID or password"`
	for _, row := range []struct {
		name   string
		follow func(*rollcall.Directory) error
		err    error
		want   []string
	}{
		{"no service", func(d *rollcall.Directory) error { return followConfig(d, "svc") }, rpctypes.ErrGRPCNoLeader, []string{
			`WARN msg="etcd unreachable" etcd="" cause="etcd at : etcdserver: no leader"`,
			`WARN msg="etcd still unreachable" for=1m0s etcd="" cause="etcd at : etcdserver: no leader"`,
		}},
		{"login", func(d *rollcall.Directory) error { _, err := d.Subscribe("svc"); return err }, rpctypes.ErrGRPCAuthFailed, []string{
			`WARN msg="etcd refuses the login" etcd="" ` + cause,
			`WARN msg="etcd still refuses the login" for=1m0s etcd="" ` + cause,
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				conn.Fail(fakeetcd.Get, row.err)
				var lines logLines
				d := loggingDirectory(t, conn, &lines)
				defer d.Close()
				if err := row.follow(d); err != nil {
					t.Fatal(err)
				}
				time.Sleep(90 * time.Second)
				lines.want(t, row.want...)
			})
		})
	}
}

// A8: services that may not be read are one line at the start, one a minute while any is
// refused, and one when none is any more, whether they could be read before or not.
func TestRefusalsAreLogged(t *testing.T) {
	const services = 50
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprint("granted at first: ", before), func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				var lines logLines
				d := loggingDirectory(t, conn, &lines)
				defer d.Close()
				var refused atomic.Bool
				refused.Store(!before)
				conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
					for _, key := range call.Reads() {
						if strings.HasPrefix(key, rollcall.ConfigPrefix) || refused.Load() && strings.HasPrefix(key, "svc") {
							return rpctypes.ErrGRPCPermissionDenied
						}
					}
					return nil
				})
				if err := followConfig(d, "svc-0"); err != nil {
					t.Fatal(err)
				}
				subscribeAll(t, d, services)
				if before {
					time.Sleep(time.Minute)
					refused.Store(true)
					conn.CancelWatches(rpctypes.ErrPermissionDenied)
					time.Sleep(time.Millisecond)
				}
				subscribe(t, d, "other") // may be read
				time.Sleep(3*time.Minute + 30*time.Second)
				refused.Store(false)
				time.Sleep(time.Minute)
				const rest = `etcd="" services=50 first=svc-0/ cause="etcdserver: permission denied"`
				lines.want(t,
					`WARN msg="etcd refuses access to services; keeping what is known of them" `+rest,
					`WARN msg="etcd still refuses access to services; serving what is known of them" `+rest+` for=1m1s`,
					`WARN msg="etcd still refuses access to services; serving what is known of them" `+rest+` for=2m1s`,
					`WARN msg="etcd still refuses access to services; serving what is known of them" `+rest+` for=3m1s`,
					`INFO msg="etcd grants access to services again" etcd="" after=3m3*s`)
			})
		})
	}
}

// Refusals are logged once a minute at most, however many subscriptions come and go.
func TestRefusalsOutliveSubscriptions(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		var lines logLines
		d := loggingDirectory(t, conn, &lines)
		defer d.Close()
		visit := func(n int) {
			for range n {
				sub := subscribe(t, d, "svc")
				time.Sleep(400 * time.Millisecond)
				sub.Close()
				time.Sleep(100 * time.Millisecond)
			}
		}
		conn.SetHook(func(context.Context, fakeetcd.Call) error { return rpctypes.ErrGRPCPermissionDenied })
		visit(20)
		first := `WARN msg="etcd refuses access to services; keeping what is known of them" etcd="" services=1 first=svc/ cause="etcdserver: permission denied"`
		lines.want(t, first)
		visit(120)
		conn.SetHook(nil)
		visit(2)
		again := `WARN msg="etcd still refuses access to services; serving what is known of them" etcd="" services=1 first=svc/ cause="etcdserver: permission denied" for=1m1s`
		lines.want(t, first, again, `INFO msg="etcd grants access to services again" etcd="" after=1m*s`)
	})
}

// The logger of a Directory may be exchanged while it runs; nil is slog.Default().
func TestSetLogger(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		if d.Logger() != slog.Default() {
			t.Error("a nil logger is not slog.Default()")
		}
		sub := subscribe(t, d, "svc")
		defer sub.Close()
		next(t, sub)
		var first, second logLines
		log := first.Logger(slog.LevelDebug)
		d.SetLogger(log)
		if d.Logger() != log {
			t.Error("the logger was not set")
		}
		conn.LoseLeader()
		time.Sleep(time.Second)
		d.SetLogger(second.Logger(slog.LevelDebug))
		conn.FindLeader()
		time.Sleep(10 * time.Second)
		if !strings.Contains(first.String(), "etcd unreachable") || !strings.Contains(second.String(), "etcd reachable again") {
			t.Errorf("the first got %q, the second %q", &first, &second)
		}
		d.SetLogger(nil)
		if d.Logger() != slog.Default() {
			t.Error("nil is not slog.Default()")
		}
	})
}

// A11: a list waits until its context ends; the error has the context's and etcd's.
func TestListWaits(t *testing.T) {
	for name, row := range map[string]struct {
		fault func(*fakeetcd.Conn)
		want  error
	}{
		"cut":         {(*fakeetcd.Conn).Cut, rollcall.ErrNoAnswer},
		"no leader":   {(*fakeetcd.Conn).LoseLeader, rpctypes.ErrNoLeader},
		"unavailable": {func(c *fakeetcd.Conn) { c.Fail(fakeetcd.Get, rpctypes.ErrGRPCTimeout) }, rpctypes.ErrTimeout},
	} {
		for _, followed := range []bool{false, true} { // true: there is a link that knows
			t.Run(fmt.Sprint(name, ", followed: ", followed), func(t *testing.T) {
				bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
					d := directory(t, conn)
					defer d.Close()
					if followed {
						next(t, subscribe(t, d, "other"))
					}
					row.fault(conn)
					for _, patience := range []time.Duration{time.Second, time.Minute} {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						began := time.Now()
						_, err := d.List(ctx, "svc")
						cancel()
						if took := time.Since(began); took != patience {
							t.Errorf("List returned after %v, want %v", took, patience)
						}
						if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, row.want) {
							t.Errorf("got %v, want %v", err, row.want)
						}
					}
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(12*time.Second, cancel)
					if _, err := d.List(ctx, "svc"); !errors.Is(err, context.Canceled) || !errors.Is(err, row.want) {
						t.Errorf("got %v, want %v", err, row.want)
					}
				})
			})
		}
	}
}

// After the etcd client was closed Next returns ErrClosed every time, whether anything was
// known or not, and deliveries end.
func TestNextAfterTheClientWasClosed(t *testing.T) {
	for _, known := range []bool{true, false} {
		bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
			if !known {
				conn.LoseLeader()
				conn.Cut()
			}
			d := directory(t, conn)
			defer d.Close()
			sub := subscribe(t, d, "svc")
			calls := 0
			deliver(t, d, "svc", func(*rollcall.Snapshot, error) { calls++ })
			time.Sleep(time.Minute)
			conn.Close()
			synctest.Wait()
			ended := calls
			for range 3 {
				for {
					_, err := sub.Next(context.Background())
					if errors.Is(err, rollcall.ErrClosed) {
						break
					}
				}
			}
			if _, err := d.Subscribe("svc"); !errors.Is(err, rollcall.ErrClosed) {
				t.Errorf("subscribe: %v", err)
			}
			if _, err := d.List(t.Context(), "svc"); !errors.Is(err, rollcall.ErrClosed) {
				t.Errorf("list: %v", err)
			}
			time.Sleep(time.Hour)
			if calls != ended {
				t.Errorf("%d deliveries after the client was closed", calls-ended)
			}
			sub.Close()
			if _, err := sub.Next(context.Background()); !errors.Is(err, rollcall.ErrClosed) {
				t.Errorf("next after Close: %v", err)
			}
		})
	}
}

// A consumer that polls many subscriptions is not slow: Next returns what is newer at once.
func TestPollerIsNotThrottled(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		d := directory(t, conn)
		defer d.Close()
		subs := subscribeAll(t, d, 100)
		for _, sub := range subs {
			next(t, sub)
		}
		for round := range 20 {
			for i := range subs {
				store.Put(fmt.Sprintf("svc-%d/%d", i, round), `{"Addr":"a:1"}`)
			}
			time.Sleep(time.Second)
			for _, sub := range subs {
				began := time.Now()
				if got := next(t, sub).Len(); got != round+1 {
					t.Fatalf("%d instances, want %d", got, round+1)
				}
				if took := time.Since(began); took > 0 {
					t.Fatalf("Next held back what was there for %v", took)
				}
				time.Sleep(10 * time.Millisecond) // work on it
			}
		}
	})
}

// W16: a member without a leader is asked once a service for what it has, although each check
// of the watch stream replaces the stream.
func TestMemberWithoutLeaderIsAskedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		const services = 20
		var down atomic.Bool
		var lists atomic.Int64
		conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if !down.Load() {
				return nil
			}
			if call.Method == fakeetcd.Get && call.End != "" {
				lists.Add(1)
			}
			r, ok := call.Request.(*etcdserverpb.RangeRequest)
			if call.Method == fakeetcd.Watch || ok && !r.Serializable && call.End != "" {
				return rpctypes.ErrGRPCNoLeader
			}
			return nil // a check's question is answered: the stream is asked next
		})
		d := directory(t, conn)
		defer d.Close()
		next(t, subscribe(t, d, "known"))
		down.Store(true)
		conn.BreakStreams()
		time.Sleep(time.Minute)
		streams, before := conn.Calls(fakeetcd.WatchStream), lists.Load()
		for i := range services {
			store.Put(fmt.Sprintf("svc-%d/a", i), `{"Addr":"a:1"}`)
		}
		subs := subscribeAll(t, d, services)
		time.Sleep(10 * time.Minute)
		if n := conn.Calls(fakeetcd.WatchStream) - streams; n < 60 {
			t.Errorf("the stream was replaced %d times only", n)
		}
		if n := lists.Load() - before; n > 2*services {
			t.Errorf("%d lists of %d services", n, services)
		}
		for _, sub := range subs {
			if snap := sub.Latest(); snap == nil || snap.Staleness() == nil || snap.Len() != 1 {
				t.Errorf("what the member has is not shown: %v", snap)
			}
		}
	})
}
