// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdconn

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// env is a Monitor on a store of its own, in virtual time.
type env struct {
	*testing.T
	store   *fakeetcd.Store
	conn    *fakeetcd.Conn
	monitor *Monitor
	stop    func()
	begun   time.Time

	mu       sync.Mutex
	keys     []string // to probe with
	readable bool
	log      bytes.Buffer
}

// bubble runs a test on a Monitor that runs.
func bubble(t *testing.T, test func(e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &env{T: t, store: fakeetcd.New(), keys: []string{"p/"}, readable: true, begun: time.Now()}
		defer e.store.Close()
		e.conn = e.store.Connect(context.Background())
		e.monitor = New(Options{Client: e.conn.Client, Logger: e.logger(), LastKnown: func() string { return "5 endpoints" },
			ProbeKeys: func(n int) ([]string, bool) {
				e.mu.Lock()
				defer e.mu.Unlock()
				return e.keys[:min(n, len(e.keys))], e.readable
			}})
		e.monitor.Reset()
		e.run()
		defer func() { e.stop() }()
		test(e)
	})
}

func (e *env) run() {
	ctx, cancel := context.WithCancel(e.conn.Client.Ctx())
	var wg sync.WaitGroup
	wg.Go(func() { e.monitor.Run(ctx) })
	e.stop = func() { cancel(); wg.Wait() }
	synctest.Wait()
}

func (e *env) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.Write(p)
}

func (e *env) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(e, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// lines returns what was logged since the last call.
func (e *env) lines() string {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.log.Reset()
	return strings.TrimSpace(e.log.String())
}

func (e *env) probe(readable bool, keys ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keys, e.readable = keys, readable
}

func (e *env) status() Status {
	synctest.Wait()
	status, _ := e.monitor.Status()
	return status
}

// outage checks that there is an outage for a cause; nil: that there is none.
func (e *env) outage(when string, cause error) {
	e.Helper()
	outage := e.status().Outage
	switch {
	case cause == nil && outage != nil:
		e.Errorf("%s: outage: %v, want none", when, outage.Cause)
	case cause != nil && outage == nil:
		e.Errorf("%s: no outage, want one for %v", when, cause)
	case cause != nil && !errors.Is(outage.Cause, cause):
		e.Errorf("%s: outage: %v, want %v", when, outage.Cause, cause)
	}
}

func sleep(seconds float64) { time.Sleep(time.Duration(seconds * float64(time.Second))) }

func closed(c <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestOutage(t *testing.T) {
	bubble(t, func(e *env) {
		sleep(11)
		e.outage("at first", nil)
		recovered := e.monitor.Recovered()
		_, changed := e.monitor.Status()
		e.conn.LoseLeader()
		began := time.Now()
		e.monitor.Recheck(e.Context())
		e.outage("without a leader", rpctypes.ErrNoLeader)
		if !closed(changed) || closed(recovered) {
			e.Errorf("begin: changed %t, recovered %t, want only the first", closed(changed), closed(recovered))
		}
		since := e.status().Outage.Since
		if since.Sub(began) > time.Second {
			e.Errorf("outage since %v after the recheck", since.Sub(began))
		}
		sleep(100)
		if got := e.status().Outage.Since; got != since {
			e.Errorf("since %v, want %v as at the beginning", got, since)
		}
		e.conn.FindLeader()
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrAuthFailed)
		sleep(6)
		e.outage("for another cause", rpctypes.ErrAuthFailed)
		if got := e.status().Outage.Since; got != since {
			e.Errorf("for another cause since %v, want %v", got, since)
		}
		e.conn.Fail(fakeetcd.Get, nil)
		sleep(6)
		e.outage("with a leader", nil)
		if !closed(recovered) {
			e.Error("nobody is told of the recovery")
		}
	})
}

func TestOutageLog(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrNoLeader)
		e.monitor.Recheck(e.Context())
		sleep(150)
		e.conn.Fail(fakeetcd.Get, nil)
		sleep(10)
		const rest = `serving="5 endpoints" etcd="" cause="etcd at : etcdserver: no leader"`
		want := []string{
			`level=WARN msg="etcd unreachable" ` + rest,
			`level=WARN msg="etcd still unreachable" for=1m0s ` + rest,
			`level=WARN msg="etcd still unreachable" for=2m0s ` + rest,
			`level=INFO msg="etcd reachable again" etcd="" after=2m3`,
		}
		got := strings.Split(e.lines(), "\n")
		if len(got) != len(want) {
			e.Fatalf("got\n%s", strings.Join(got, "\n"))
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				e.Errorf("line %d:\ngot  %s\nwant %s", i, got[i], want[i])
			}
		}
	})
}

// During an outage the Monitor asks on, ever less often.
func TestOutageIsAskedAboutSparingly(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrNoLeader)
		e.monitor.Recheck(e.Context())
		sleep(60)
		before := e.conn.Calls(fakeetcd.Get)
		sleep(60)
		if n := e.conn.Calls(fakeetcd.Get) - before; n < 12 || n > 25 {
			e.Errorf("%d questions in a minute, want one every 2.5 s to 5 s", n)
		}
	})
}

func TestLoginRefused(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrAuthFailed)
		e.monitor.Recheck(e.Context())
		e.outage("wrong password", rpctypes.ErrAuthFailed)
		if got := e.lines(); !strings.HasPrefix(got, `level=WARN msg="etcd refuses the login" serving=`) {
			e.Errorf("log: %s", got)
		}
	})
}

// A refusal is an answer: no outage.
func TestRefusalIsAnAnswer(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrPermissionDenied)
		e.conn.Fail(fakeetcd.Watch, rpctypes.ErrPermissionDenied)
		for range 3 {
			sleep(23)
			e.monitor.Recheck(e.Context())
			e.outage("refused", nil)
		}
		if e.conn.Calls(fakeetcd.Get) < 3 || e.conn.Calls(fakeetcd.Watch) < 3 {
			e.Errorf("%d questions, %d probes", e.conn.Calls(fakeetcd.Get), e.conn.Calls(fakeetcd.Watch))
		}
	})
}

// A stream that was silent for 10 s is probed, and replaced where it does not answer. One
// that has delivered something is not.
func TestSilentStream(t *testing.T) {
	bubble(t, func(e *env) {
		stream := e.status().Stream
		sleep(11) // the first probe also finds out whether there is a proxy
		before := e.conn.Calls(fakeetcd.Watch)
		for range 5 {
			e.monitor.ObserveMessage(stream, &etcdserverpb.ResponseHeader{})
			sleep(9)
		}
		if n := e.conn.Calls(fakeetcd.Watch); n != before {
			e.Errorf("%d probes of a stream that delivers", n-before)
		}
		sleep(2)
		if n := e.conn.Calls(fakeetcd.Watch); n != before+1 || e.status().Stream != stream {
			e.Errorf("%d probes after 11 s of silence, stream %d; want 1, %d", n-before, e.status().Stream, stream)
		}
		// One watch must be open on the stream: a stream without one is opened anew.
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		watch := etcdkv.Watch(e.monitor.StreamContext(ctx, stream), e.conn.Client, etcdkv.Prefix("p/"), 0)
		<-watch
		e.conn.Freeze()
		sleep(10 + 5 + 1)
		if got := e.status(); got.Stream != stream+1 {
			e.Errorf("a stream that hangs was not replaced: %+v", got)
		}
		sleep(6)
		e.outage("after it was replaced", nil)
	})
}

func TestReplaceStream(t *testing.T) {
	bubble(t, func(e *env) {
		stream := e.status().Stream
		e.monitor.ReplaceStream(stream + 1)
		if got := e.status().Stream; got != stream {
			e.Errorf("stream %d, want another one's replacement to change nothing", got)
		}
		for range 5 {
			e.monitor.ReplaceStream(stream)
		}
		if got := e.status().Stream; got != stream+1 {
			e.Errorf("stream %d, want it replaced once", got)
		}
		e.monitor.ReplaceStream(stream + 1)
		if got := e.status().Stream; got != stream+1 {
			e.Errorf("stream %d, want no second replacement within a second", got)
		}
		sleep(1)
		e.monitor.ReplaceStream(stream + 1)
		if got := e.status().Stream; got != stream+2 {
			e.Errorf("stream %d, want it replaced after a second", got)
		}
	})
}

// Recheck waits for the outcome; while the status is less than a second old, and during an
// outage, it costs nothing.
func TestRecheck(t *testing.T) {
	bubble(t, func(e *env) {
		sleep(5)
		var entered int
		e.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if call.Method == fakeetcd.Get {
				entered++
				time.Sleep(300 * time.Millisecond)
			}
			return nil
		})
		recheck := func(want time.Duration, asked int) {
			e.Helper()
			began := time.Now()
			e.monitor.Recheck(e.Context())
			if took := time.Since(began); took != want || entered != asked {
				e.Errorf("took %v, %d questions; want %v, %d", took, entered, want, asked)
			}
		}
		var others sync.WaitGroup
		for range 10 {
			others.Go(func() { e.monitor.Recheck(context.Background()) })
		}
		recheck(300*time.Millisecond, 1)
		others.Wait()
		recheck(0, 1)
		sleep(0.9)
		recheck(0, 1)
		sleep(0.2)
		recheck(300*time.Millisecond, 2)
		sleep(2)
		ctx, cancel := context.WithTimeout(e.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		e.monitor.Recheck(ctx)
		if took := time.Since(began); took != 100*time.Millisecond {
			e.Errorf("took %v, want no longer than its context", took)
		}
		e.conn.SetHook(nil)
		sleep(2)
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrNoLeader)
		recheck(0, 3)
		e.outage("meanwhile", rpctypes.ErrNoLeader)
		sleep(20)
		asked := e.conn.Calls(fakeetcd.Get)
		recheck(0, 3)
		if n := e.conn.Calls(fakeetcd.Get); n != asked {
			e.Error("asked because of a recheck during an outage")
		}
		e.stop()
		recheck(0, 3)
		e.stop = func() {}
	})
}

// Run ends with its context or with the client, and forgets the outage, whose end is logged
// by the next Run.
func TestRunEnds(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrNoLeader)
		e.monitor.Recheck(e.Context())
		e.outage("while it runs", rpctypes.ErrNoLeader)
		e.stop()
		e.outage("after it ended", nil)
		e.lines()
		e.conn.Fail(fakeetcd.Get, nil)
		sleep(5)
		e.monitor.Reset()
		e.run()
		if got := e.lines(); !strings.HasPrefix(got, `level=INFO msg="etcd reachable again"`) || strings.Contains(got, "\n") {
			e.Errorf("log: %s", got)
		}
		e.conn.Close()
		e.stop()
	})
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		m := New(Options{Client: conn.Client, Logger: slog.New(slog.DiscardHandler), LastKnown: func() string { return "" },
			ProbeKeys: func(int) ([]string, bool) { return nil, false }})
		ended := make(chan struct{})
		go func() { m.Run(conn.Client.Ctx()); close(ended) }()
		sleep(30)
		if closed(ended) {
			t.Error("Run ended by itself")
		}
		conn.Close()
		if !closed(ended) {
			t.Error("Run goes on with a closed client")
		}
	})
}

// Reset drops what the time without Run has made out of date: the silence of a stream is
// counted anew.
func TestReset(t *testing.T) {
	bubble(t, func(e *env) {
		sleep(1)
		e.stop()
		sleep(3600)
		e.monitor.Reset()
		e.run()
		before := e.conn.Calls(fakeetcd.Watch)
		e.monitor.ObserveMessage(e.status().Stream, &etcdserverpb.ResponseHeader{})
		sleep(9)
		if n := e.conn.Calls(fakeetcd.Watch); n != before {
			e.Errorf("%d probes right after Reset", n-before)
		}
	})
}

// Two streams of one Monitor, and those of two Monitors, share no gRPC stream.
func TestStreamContext(t *testing.T) {
	bubble(t, func(e *env) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		before := e.conn.Calls(fakeetcd.WatchStream)
		for _, wctx := range []context.Context{e.monitor.StreamContext(ctx, 7), e.monitor.StreamContext(ctx, 7),
			e.monitor.StreamContext(ctx, 8), New(e.monitor.opts).StreamContext(ctx, 7), clientv3.WithRequireLeader(ctx)} {
			<-etcdkv.Watch(wctx, e.conn.Client, etcdkv.SingleKey("a"), 0)
		}
		if n := e.conn.Calls(fakeetcd.WatchStream) - before; n != 4 {
			e.Errorf("%d gRPC streams, want 4", n)
		}
		e.conn.LoseLeader()
		resp := <-etcdkv.Watch(e.monitor.StreamContext(ctx, 9), e.conn.Client, etcdkv.SingleKey("a"), 0)
		if err := etcdkv.Typed(resp.Err()); !errors.Is(err, rpctypes.ErrNoLeader) {
			e.Errorf("got %v, want a leader to be required", err)
		}
	})
}
