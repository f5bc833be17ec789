// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/fakeetcd"
)

// logLines collects what is logged, without the time.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logLines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
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
		d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{Logger: lines.logger()})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, sub := range subscribeAll(t, d, services) {
			sub.Deliver(func(*rollcall.Snapshot, error) {})
		}
		config, err := d.SubscribeConfig("svc-0")
		if err != nil {
			t.Fatal(err)
		}
		defer config.Close()
		time.Sleep(time.Second)
		conn.LoseLeader()
		time.Sleep(3*time.Minute + 30*time.Second)
		conn.FindLeader()
		time.Sleep(10 * time.Second)

		const rest = `etcd="" endpoints=60 services=20 cause="etcd at : etcdserver: no leader"`
		want := []string{
			`level=WARN msg="etcd unreachable; keeping last known endpoints" ` + rest,
			`level=WARN msg="etcd still unreachable; serving last known endpoints" ` + rest + ` for=1m0s`,
			`level=WARN msg="etcd still unreachable; serving last known endpoints" ` + rest + ` for=2m0s`,
			`level=WARN msg="etcd still unreachable; serving last known endpoints" ` + rest + ` for=3m0s`,
			`level=INFO msg="etcd reachable again" etcd="" after=`,
		}
		got := strings.Split(strings.TrimSpace(lines.String()), "\n")
		if len(got) != len(want) {
			t.Fatalf("%d lines, want %d:\n%s", len(got), len(want), &lines)
		}
		for i := range want {
			if got[i] != want[i] && (i < 4 || !strings.HasPrefix(got[i], want[i]+"3m3")) {
				t.Errorf("got  %s\nwant %s", got[i], want[i])
			}
		}
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
		log := first.logger()
		d.SetLogger(log)
		if d.Logger() != log {
			t.Error("the logger was not set")
		}
		conn.LoseLeader()
		time.Sleep(time.Second)
		d.SetLogger(second.logger())
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
			sub, other := subscribe(t, d, "svc"), subscribe(t, d, "svc")
			calls := 0
			other.Deliver(func(*rollcall.Snapshot, error) { calls++ })
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
				if got := len(next(t, sub).Instances()); got != round+1 {
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
