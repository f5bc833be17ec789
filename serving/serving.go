// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/rollcall-grpc/rollcall"
)

// leaveTimeout is how long deregistration may take, beyond the delay: a call to etcd.
const leaveTimeout = 5 * time.Second

// Options say who serves what. Registrar and Service are required.
type Options struct {
	Registrar *rollcall.Registrar
	Service   string // the service's name, "my-service"

	// Endpoint is what is advertised. Its Addr defaults to the listener's address, which
	// must then be one that clients can reach, so not "0.0.0.0" or ":50051".
	Endpoint rollcall.Endpoint

	// Health, if set, decides: the server is listed while this service, of the name
	// HealthService (default "", the server as a whole), says SERVING.
	Health        *health.Server
	HealthService string

	DrainDelay  time.Duration // from "draining" until deregistration, for clients to notice; default 1 s, negative: none
	StopTimeout time.Duration // how long running calls may take to finish; default 30 s, negative: no time
	Logger      *slog.Logger  // default: slog.Default()
}

func (o *Options) validate(lis net.Listener) error {
	if o.Registrar == nil {
		return errors.New("serving: Options.Registrar is nil")
	}
	if o.Endpoint.Addr == "" {
		addr := lis.Addr().String()
		if ap, err := netip.ParseAddrPort(addr); err != nil || ap.Addr().IsUnspecified() {
			return &rollcall.InputError{Field: "address", Value: addr,
				Reason: "clients cannot be told the listener's address; set Options.Endpoint.Addr to host:port"}
		}
		o.Endpoint.Addr = addr
	}
	if o.DrainDelay == 0 {
		o.DrainDelay = time.Second
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = 30 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o.Registrar.Check(o.Service, o.Endpoint)
}

// Run serves on the listener, listed in etcd, until the context ends or the server
// stops. Then, in this order: the endpoint is marked as draining, DrainDelay passes, it
// is deregistered, running calls finish (GracefulStop, cut short after StopTimeout). A
// server that ended by itself is deregistered at once. Options that can never work are
// refused before anything is served, and so is a closed Registrar; etcd being away is no
// error. A server whose Registrar is closed later goes on serving, unlisted, whatever its
// health says. Run returns nil after an orderly end, else why the server ended.
func Run(ctx context.Context, srv *grpc.Server, lis net.Listener, opts Options) error {
	if err := opts.validate(lis); err != nil {
		return err
	}
	m := &member{opts: opts}
	var status *healthStream
	if opts.Health == nil {
		if err := m.join(); err != nil {
			return err
		}
	} else {
		status = watchHealth(opts.Health, opts.HealthService)
		defer status.close()
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	ended, err := m.follow(ctx, status, served)
	m.leave(ctx, ended)
	stop(srv, opts.StopTimeout)
	if !ended {
		err = errors.Join(err, orderly(<-served))
	}
	return err
}

// orderly returns why Serve ended, nil where it was told to before it began.
func orderly(err error) error {
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// stop lets running calls finish, up to a bound.
func stop(srv *grpc.Server, timeout time.Duration) {
	cut := time.AfterFunc(timeout, srv.Stop)
	defer cut.Stop()
	srv.GracefulStop()
}

// member is the server's registration, while it has one.
type member struct {
	opts     Options
	reg      *rollcall.Registration
	unlisted sync.Once // logs that the registrar is closed
}

func (m *member) join() (err error) {
	if m.reg == nil {
		m.reg, err = m.opts.Registrar.Register(m.opts.Service, m.opts.Endpoint)
	}
	return err
}

// leave takes the server out: mark, delay, delete; at once where it has ended. Without
// etcd it does not wait longer than the delay and a call's time; the lease ends the
// rest. The end of ctx does not cut it short: a server is out before it stops.
func (m *member) leave(ctx context.Context, ended bool) {
	if m.reg == nil {
		return
	}
	reg := m.reg
	m.reg = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(0, m.opts.DrainDelay)+leaveTimeout)
	defer cancel()
	if state, _ := reg.State(); !ended && (state.Phase == rollcall.Registered || state.Phase == rollcall.Draining) {
		m.drain(ctx, reg)
	}
	if err := reg.Shutdown(ctx); err != nil {
		m.opts.Logger.Warn("cannot deregister; the lease will", "key", reg.Key(), "cause", err)
	}
}

// drain marks the server and gives clients the time to notice.
func (m *member) drain(ctx context.Context, reg *rollcall.Registration) {
	var unmarked *rollcall.InputError // metadata that is no object carries no mark
	switch err := reg.Drain(ctx); {
	case err == nil:
		select {
		case <-time.After(m.opts.DrainDelay):
		case <-ctx.Done():
		}
	case !errors.As(err, &unmarked):
		m.opts.Logger.Warn("cannot mark as draining", "key", reg.Key(), "cause", err)
	}
}

// follow joins and leaves as the health service says, until the context ends, the
// endpoint turns out to be impossible, or the server ended with err.
func (m *member) follow(ctx context.Context, status *healthStream, served <-chan error) (ended bool, err error) {
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
			m.leave(ctx, false)
		} else if err := m.join(); errors.Is(err, rollcall.ErrClosed) {
			m.unlisted.Do(func() { m.opts.Logger.Warn("serving on without being listed", "service", m.opts.Service, "cause", err) })
		} else if err != nil {
			return false, err
		}
	}
}
