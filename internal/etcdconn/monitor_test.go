// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdconn

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
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
		e.start()
		defer func() { e.stop() }()
		test(e)
	})
}

func (e *env) start() {
	e.stop = e.monitor.Start()
	synctest.Wait()
}

func (e *env) generation() uint64 { return e.monitor.watches.Generation() }

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
		stream := e.generation()
		sleep(11) // the first probe also finds out whether there is a proxy
		before := e.conn.Calls(fakeetcd.Watch)
		for range 5 {
			e.monitor.observeMessage(stream, &etcdserverpb.ResponseHeader{})
			sleep(9)
		}
		if n := e.conn.Calls(fakeetcd.Watch); n != before {
			e.Errorf("%d probes of a stream that delivers", n-before)
		}
		sleep(2)
		if n := e.conn.Calls(fakeetcd.Watch); n != before+1 || e.generation() != stream {
			e.Errorf("%d probes after 11 s of silence, stream %d; want 1, %d", n-before, e.generation(), stream)
		}
		// One watch must be open on the stream: a stream without one is opened anew.
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		watch := e.monitor.Watch(etcdkv.Prefix("p/"), 0)
		defer watch.Close()
		if _, err := watch.First(ctx); err != nil {
			e.Fatal(err)
		}
		e.conn.Freeze()
		sleep(10 + 5 + 1)
		if got := e.generation(); got != stream+1 {
			e.Errorf("a stream that hangs was not replaced: generation %d, was %d", got, stream)
		}
		sleep(6)
		e.outage("after it was replaced", nil)
	})
}

func TestReplaceStream(t *testing.T) {
	bubble(t, func(e *env) {
		stream := e.generation()
		e.monitor.ReplaceStream(stream + 1)
		if got := e.generation(); got != stream {
			e.Errorf("stream %d, want another one's replacement to change nothing", got)
		}
		for range 5 {
			e.monitor.ReplaceStream(stream)
		}
		if got := e.generation(); got != stream+1 {
			e.Errorf("stream %d, want it replaced once", got)
		}
		e.monitor.ReplaceStream(stream + 1)
		if got := e.generation(); got != stream+1 {
			e.Errorf("stream %d, want no second replacement within a second", got)
		}
		sleep(1)
		e.monitor.ReplaceStream(stream + 1)
		if got := e.generation(); got != stream+2 {
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

// A Monitor that ends, with its client at the latest, forgets the outage, whose end is logged once it
// has started again.
func TestMonitorEnds(t *testing.T) {
	bubble(t, func(e *env) {
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrNoLeader)
		e.monitor.Recheck(e.Context())
		e.outage("while it runs", rpctypes.ErrNoLeader)
		e.stop()
		e.outage("after it ended", nil)
		e.lines()
		e.conn.Fail(fakeetcd.Get, nil)
		sleep(5)
		e.start()
		if got := e.lines(); !strings.HasPrefix(got, `level=INFO msg="etcd reachable again"`) || strings.Contains(got, "\n") {
			e.Errorf("log: %s", got)
		}
		e.conn.Close()
		e.stop()
	})
	bubble(t, func(e *env) {
		sleep(30)
		if e.runs() != 1 {
			e.Error("it ended by itself")
		}
		e.conn.Close()
		synctest.Wait()
		if e.runs() != 0 {
			e.Error("it goes on with a closed client")
		}
	})
}

func (e *env) runs() int {
	e.monitor.mu.Lock()
	defer e.monitor.mu.Unlock()
	return e.monitor.running
}

// Who calls Recheck right after Start waits for a check.
func TestRecheckAfterStart(t *testing.T) {
	bubble(t, func(e *env) {
		e.stop()
		sleep(5)
		before := e.conn.Calls(fakeetcd.Get)
		e.stop = e.monitor.Start()
		e.monitor.Recheck(e.Context())
		if e.conn.Calls(fakeetcd.Get) == before {
			e.Error("nobody asked")
		}
	})
}

// The first check after a reconnection opens the stream and then asks; those after a failed one ask
// first, since clientv3 logs in for each stream. What a failed check was to verify is still due.
func TestOrderAfterAReconnection(t *testing.T) {
	bubble(t, func(e *env) {
		var calls []fakeetcd.Method
		e.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			calls = append(calls, call.Method)
			if call.Method == fakeetcd.Watch {
				return rpctypes.ErrGRPCNoLeader
			}
			return nil
		})
		e.monitor.mu.Lock()
		e.monitor.recheck, e.monitor.reconnected, e.monitor.epochSuspect, e.monitor.streamProven = true, true, true, false
		e.monitor.mu.Unlock()
		e.check("right after it", &calls, fakeetcd.WatchStream, fakeetcd.Watch)
		sleep(2)
		e.check("again", &calls, fakeetcd.Get, fakeetcd.WatchStream, fakeetcd.Watch)
		e.monitor.mu.Lock()
		defer e.monitor.mu.Unlock()
		if !e.monitor.epochSuspect {
			e.Error("the epoch is suspect no longer, and nobody has verified it")
		}
	})
}

// check has the connection checked, and wants these calls and no others.
func (e *env) check(when string, calls *[]fakeetcd.Method, want ...fakeetcd.Method) {
	*calls = nil
	if err := e.monitor.check(e.Context()); !errors.Is(err, rpctypes.ErrNoLeader) {
		e.Errorf("%s: got %v", when, err)
	}
	if !slices.Equal(*calls, want) {
		e.Errorf("%s: calls %v, want %v", when, *calls, want)
	}
}

// A token that ended while nobody looked is not taken for an answer on the stream of the next run.
func TestTokenEndsBetweenRuns(t *testing.T) {
	bubble(t, func(e *env) {
		e.monitor.Recheck(e.Context())
		e.outage("at first", nil)
		e.stop()
		sleep(3600)
		e.conn.Fail(fakeetcd.Get, rpctypes.ErrInvalidAuthToken)
		e.conn.Fail(fakeetcd.Watch, rpctypes.ErrInvalidAuthToken)
		e.start()
		e.monitor.Recheck(e.Context())
		e.outage("of a token that has ended", rpctypes.ErrInvalidAuthToken)
	})
}

// What the time between two runs has made out of date is dropped: the silence of a stream is counted anew.
func TestMonitorStartsAgain(t *testing.T) {
	bubble(t, func(e *env) {
		sleep(1)
		e.stop()
		sleep(3600)
		e.start()
		before := e.conn.Calls(fakeetcd.Watch)
		e.monitor.observeMessage(e.generation(), &etcdserverpb.ResponseHeader{})
		sleep(9)
		if n := e.conn.Calls(fakeetcd.Watch); n != before {
			e.Errorf("%d probes right after the start", n-before)
		}
	})
}

// A probe whose stream is replaced meanwhile tells nothing about etcd.
func TestStreamReplacedDuringProbe(t *testing.T) {
	bubble(t, func(e *env) {
		w := e.monitor.Watch(etcdkv.SingleKey("p/"), 0)
		defer w.Close()
		sleep(9)
		e.conn.Freeze()
		sleep(2) // a probe is under way
		e.monitor.ReplaceStream(e.generation())
		e.outage("once the stream is replaced", nil)
		e.conn.Thaw()
		sleep(1)
		e.outage("once etcd answers", nil)
		if lines := e.lines(); lines != "" {
			e.Error(lines)
		}
	})
}
