// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package steering_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/serving"
)

// rolled is what callers saw of a rolling restart.
type rolled struct{ calls, failed, streams, brokenStreams int64 }

// TestRollingRestart: with each server drained first no call fails, and no stream that lasts
// longer than the drain breaks. Without, some do.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	res := roll(t, func(_ *server, drain func()) { drain() })
	t.Logf("each server drained first: %d calls, %d failed; %d streams, %d broke", res.calls, res.failed, res.streams, res.brokenStreams)
	if res.failed > 0 || res.brokenStreams > 0 {
		t.Error("the restart was noticed")
	}
	res = roll(t, func(s *server, drain func()) {
		s.grpc.Stop()
		drain()
	})
	t.Logf("without draining: %d calls, %d failed; %d streams, %d broke", res.calls, res.failed, res.streams, res.brokenStreams)
	if res.failed+res.brokenStreams == 0 {
		t.Error("nothing was noticed: the test cannot tell")
	}
}

// roll has 20 servers replaced one after another under 2,000 calls a second, and under
// server streams.
func roll(t *testing.T, stopOne func(s *server, drain func())) rolled {
	const servers, callers, rate = 20, 8, 2000
	f := newFleet(t)
	registrar, err := rollcall.NewRegistrar(lab.Directory(t, f.etcd), rollcall.RegistrarOptions{TTL: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = registrar.Shutdown(lab.CleanupContext(t)) })
	// run serves under a registration until it is stopped.
	run := func(name string) (s *server, stop func()) {
		s, ln := f.newServer(name)
		f.servers[name] = s
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := serving.Run(ctx, s.grpc, ln, serving.Options{Registrar: registrar, Service: f.service, Endpoint: rollcall.Endpoint{ID: name},
				DrainDelay: 100 * time.Millisecond}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}()
		return s, sync.OnceFunc(func() {
			cancel()
			<-done
		})
	}
	var stops []func()
	var all []*server
	for i := range servers {
		s, stop := run(fmt.Sprintf("old-%d", i))
		stops, all = append(stops, stop), append(all, s)
	}
	t.Cleanup(func() {
		for _, stop := range stops {
			stop()
		}
	})
	conn := f.dial("etcd:///svc", policy("round_robin", "{}"))
	for began := time.Now(); ; {
		if got, _ := f.shares(conn, 200); len(got) == servers {
			break
		}
		if time.Since(began) > lab.WaitMost {
			t.Fatal("not all servers are called")
		}
	}
	var res rolled
	var end atomic.Bool
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for tick := time.Now(); !end.Load(); time.Sleep(time.Until(tick)) {
				tick = tick.Add(callers * time.Second / rate)
				if _, err := lab.Call(t, conn); err != nil && atomic.AddInt64(&res.failed, 1) == 1 {
					t.Logf("the first call that failed: %v", err)
				}
				atomic.AddInt64(&res.calls, 1)
			}
		})
		wg.Go(func() {
			for !end.Load() {
				if err := stream(conn); err != nil && atomic.AddInt64(&res.brokenStreams, 1) == 1 {
					t.Logf("the first stream that broke: %v", err)
				}
				atomic.AddInt64(&res.streams, 1)
			}
		})
	}
	for i := range servers {
		_, stop := run(fmt.Sprintf("new-%d", i))
		stops = append(stops, stop)
		stopOne(all[i], stops[i])
	}
	end.Store(true)
	wg.Wait()
	return res
}

// stream reads a stream of half a second to its end.
func stream(conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req := &testpb.StreamingOutputCallRequest{}
	for range 5 {
		req.ResponseParameters = append(req.ResponseParameters, &testpb.ResponseParameters{IntervalUs: 100_000})
	}
	s, err := testpb.NewTestServiceClient(conn).StreamingOutputCall(ctx, req)
	if err != nil {
		return err
	}
	for {
		if _, err := s.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
