// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
)

// leaveTimeout is how long deregistration may take, beyond the delay: a call to etcd.
const leaveTimeout = 5 * time.Second

// ListenAndServe runs a Server on a TCP address; see Server.ListenAndServe. Options that can
// never work are an *rollcall.InputError.
func ListenAndServe(ctx context.Context, srv GRPCServer, addr string, opts Options) error {
	s, err := New(srv, opts)
	if err != nil {
		return err
	}
	return s.ListenAndServe(ctx, addr)
}

// Run runs a Server on a listener; see Server.Run. Options that can never work are an
// *rollcall.InputError.
func Run(ctx context.Context, srv GRPCServer, lis net.Listener, opts Options) error {
	s, err := New(srv, opts)
	if err != nil {
		return err
	}
	return s.Run(ctx, lis)
}

// Server is a gRPC server tied to its registrations. It runs once.
type Server struct {
	srv      GRPCServer
	opts     Options
	unlisted sync.Once // logs that the registrar is closed

	registrar *rollcall.Registrar // owned by Run

	mu         sync.Mutex
	started    bool
	idle       string // why there are no registrations, or they are about to go; "": they stay
	regs       []*rollcall.Registration
	registered bool // all of them have been in etcd
}

// New returns a Server that has yet to be run. Options that can never work are an
// *rollcall.InputError, but for the endpoint, which Run checks.
func New(srv GRPCServer, opts Options) (*Server, error) {
	if srv == nil {
		return nil, errors.New("serving: the gRPC server is nil")
	}
	if err := opts.validate(); err != nil {
		return nil, err
	}
	return &Server{srv: srv, opts: opts, idle: "the server has not been started"}, nil
}

// logger returns the logger of a Server that has been started.
func (s *Server) logger() *slog.Logger {
	if s.opts.Logger != nil {
		return s.opts.Logger
	}
	return s.registrar.Logger()
}

// ListenAndServe listens on a TCP address and calls Run. A host name in the address is
// advertised as it is, where Options.Endpoint.Addr is not set; else the address that is listened
// on. It fails where it cannot listen, and where the address, such as ":50051", is not one that
// clients can reach and Options.Endpoint.Addr is not set.
func (s *Server) ListenAndServe(ctx context.Context, addr string) error {
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer lis.Close()
	return s.run(ctx, lis, addr)
}

// Run serves on the listener, listed in etcd, until the context ends or the server stops. Then,
// in this order: the endpoint is marked as draining, DrainDelay passes, it is deregistered, and
// running calls finish (GracefulStop, cut short after StopTimeout). Metadata that is not an object
// cannot carry the mark: the server is then deregistered at once. A server that ended by itself
// is deregistered at once. The Registrar that the Server has made of Options.Client is closed at
// the end; one that was given stays open.
//
// Run returns nil after an orderly end, else why the server ended. Before anything is served it
// fails with an *rollcall.InputError if the endpoint can never be registered, with an error that
// wraps rollcall.ErrClosed if the Registrar or the etcd client is closed, and if the Server has
// run before. It does not fail because etcd is away: the server is listed once etcd answers, and
// ends at most 6 s after DrainDelay and the running calls. If the Registrar is closed later, the
// server goes on unlisted, whatever its health says.
func (s *Server) Run(ctx context.Context, lis net.Listener) error { return s.run(ctx, lis, "") }

// run is Run on a listener for an address as it was written, "" where that is not known.
func (s *Server) run(ctx context.Context, lis net.Listener, written string) error {
	release, err := s.start(lis, written)
	if err != nil {
		return err
	}
	defer release()
	var status *healthStream
	if s.opts.Health == nil {
		if err := s.join(); err != nil {
			return err
		}
	} else {
		status = watchHealth(s.opts.Health, s.opts.HealthService)
		defer status.close()
	}
	served := make(chan error, 1)
	go func() { served <- s.srv.Serve(lis) }()
	ended, err := s.follow(ctx, status, served)
	if ended {
		s.leave(ctx, "the server has stopped", true)
	} else {
		s.leave(ctx, "the server is stopping", false)
	}
	stop(s.srv, s.opts.StopTimeout)
	if !ended {
		err = errors.Join(err, orderly(<-served))
	}
	return err
}

// start checks what New cannot, and returns what is to be called in the end.
func (s *Server) start(lis net.Listener, written string) (release func(), err error) {
	if lis == nil {
		return nil, errors.New("serving: the listener is nil")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return nil, errors.New("serving: a Server runs once; make another one")
	}
	if err := s.opts.advertise(lis, written); err != nil {
		return nil, err
	}
	registrar, release, err := s.opts.registrar()
	if err != nil {
		return nil, err
	}
	for _, service := range s.opts.Services {
		if err := registrar.Check(service, s.opts.Endpoint); err != nil {
			release()
			return nil, err
		}
	}
	s.started, s.registrar = true, registrar
	if !s.opts.canDrain() {
		s.logger().Warn("the metadata is not an object and cannot carry the drain mark; the server will leave without one",
			"services", s.opts.Services)
	}
	s.idle = "the health service does not say SERVING"
	return release, nil
}

// orderly returns why Serve ended, nil where it was stopped before it began.
func orderly(err error) error {
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// stop lets running calls finish, up to a bound.
func stop(srv GRPCServer, timeout time.Duration) {
	cut := time.AfterFunc(timeout, srv.Stop)
	defer cut.Stop()
	srv.GracefulStop()
}

// Registrations returns the server's registrations, one for each service, while it is
// listed; none before it runs, after it has left, and while its health service does not
// say SERVING.
func (s *Server) Registrations() []*rollcall.Registration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.regs)
}

// join registers the server under all of its services, or none.
func (s *Server) join() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.regs != nil {
		return nil
	}
	var regs []*rollcall.Registration
	for _, service := range s.opts.Services {
		g, err := s.registrar.Register(service, s.opts.Endpoint)
		if err != nil {
			for _, g := range regs {
				g.Close()
			}
			s.idle = err.Error()
			return err
		}
		regs = append(regs, g)
	}
	s.regs, s.idle = regs, ""
	return nil
}

// leave takes the server out: mark, delay, delete; at once where it has ended. Without
// etcd it does not wait longer than the delay and a call's time; the lease ends the
// rest. The end of ctx does not cut it short: a server is out before it stops.
func (s *Server) leave(ctx context.Context, why string, ended bool) {
	s.mu.Lock()
	s.registeredLocked()
	s.idle = why
	regs := s.regs
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.DrainDelay+leaveTimeout)
	defer cancel()
	if !ended {
		s.drain(ctx, regs)
	}
	failed := make(chan error, len(regs))
	each(regs, func(g *rollcall.Registration) {
		if err := g.Shutdown(ctx); err != nil {
			failed <- err
		}
	})
	if len(failed) > 0 {
		s.logger().Warn("cannot deregister yet; the server is out when etcd answers or its lease ends",
			"services", fmt.Sprint(s.opts.Services), "cause", <-failed)
	}
	s.mu.Lock()
	s.regs = nil
	s.mu.Unlock()
}

// drain marks those that are in etcd, and gives clients the time to notice. What cannot be marked
// in time cannot be deregistered in time either, and leave logs that.
func (s *Server) drain(ctx context.Context, regs []*rollcall.Registration) {
	marked := make(chan bool, len(regs))
	each(regs, func(g *rollcall.Registration) {
		if state, _ := g.State(); state.Phase != rollcall.Registered && state.Phase != rollcall.Draining {
			return
		}
		if err := g.Drain(ctx); err == nil { // metadata that is not an object cannot be marked
			marked <- true
		}
	})
	if len(marked) > 0 {
		select {
		case <-time.After(s.opts.DrainDelay):
		case <-ctx.Done():
		}
	}
}

// each calls f for all registrations at once, and waits.
func each(regs []*rollcall.Registration, f func(*rollcall.Registration)) {
	var wg sync.WaitGroup
	for _, g := range regs {
		wg.Go(func() { f(g) })
	}
	wg.Wait()
}

// follow joins and leaves with the status of the health service, until the context ends, the
// endpoint turns out to be impossible, or the server ended with err.
func (s *Server) follow(ctx context.Context, status *healthStream, served <-chan error) (ended bool, err error) {
	var changed <-chan struct{}
	if status != nil {
		changed = status.changed
	}
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case err := <-served:
			return true, orderly(err)
		case <-changed:
		}
		if !status.serving.Load() {
			s.leave(ctx, "the health service does not say SERVING", false)
		} else if err := s.join(); errors.Is(err, rollcall.ErrClosed) {
			s.unlisted.Do(func() {
				s.logger().Warn("serving on without being listed", "services", fmt.Sprint(s.opts.Services), "cause", err)
			})
		} else if err != nil {
			return false, err
		}
	}
}
