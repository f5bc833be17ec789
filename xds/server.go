// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
)

// Options are the settings of a Server; the zero value works.
type Options struct {
	// Policy decides which addresses clients are sent; what a host name resolves to is checked
	// as well. Default: rollcall.HostPort.
	Policy rollcall.AddressPolicy

	// Authorize decides which services a client may ask for. It is given the context of the
	// client's stream, which has its peer. An error's text is what the client is told, and what
	// its calls fail with. Default: all.
	Authorize func(ctx context.Context, service string) error

	// Subset is how many endpoints of a service a client is sent. Of a larger service each client
	// gets a part, in which every locality and weight is represented in proportion, by one
	// endpoint at least. Default 2,000.
	Subset int

	// PushInterval is the least time between changes of resources of one type that a stream is
	// sent; what changes meanwhile is sent together. The first is sent at once. It is longer where
	// sending a change to all clients of a service takes long: four times that, 1 s at the most.
	// Default 100 ms.
	PushInterval time.Duration

	// Linger is for how long a service is followed after its last client has left. Default 30 s.
	Linger time.Duration

	// WriteTimeout is for how long a client may leave a response unread, or neither acknowledge nor
	// reject it, before its stream is ended. Default 30 s.
	WriteTimeout time.Duration

	// MaxStreams is how many streams there may be, MaxNames how many resources of one type a
	// stream may ask for, MaxServices how many services may be followed: calls to others fail.
	// Default 20,000, 1,000 and 10,000.
	MaxStreams, MaxNames, MaxServices int

	// LookupHost resolves the host names among addresses. Default: the system's resolver.
	LookupHost func(ctx context.Context, host string) ([]netip.Addr, error)

	// Logger is told what clients reject and why streams were ended. Default: the Directory's.
	Logger *slog.Logger
}

func (o *Options) validate() error {
	for _, err := range []error{
		setDefault("Subset", &o.Subset, 2000),
		setDefault("MaxStreams", &o.MaxStreams, 20_000),
		setDefault("MaxNames", &o.MaxNames, 1000),
		setDefault("MaxServices", &o.MaxServices, 10_000),
		setDefault("PushInterval", &o.PushInterval, 100*time.Millisecond),
		setDefault("Linger", &o.Linger, 30*time.Second),
		setDefault("WriteTimeout", &o.WriteTimeout, 30*time.Second),
	} {
		if err != nil {
			return err
		}
	}
	if o.LookupHost == nil {
		o.LookupHost = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return nil
}

// setDefault sets an option that is 0.
func setDefault[T int | time.Duration](name string, value *T, standard T) error {
	if *value < 0 {
		return &rollcall.InputError{Field: name, Value: fmt.Sprint(*value), Reason: "it must not be negative"}
	}
	*value = cmp.Or(*value, standard)
	return nil
}

// Server serves the services of a Directory as xDS. It implements Envoy's
// AggregatedDiscoveryService, state of the world and incremental.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	directory *rollcall.Directory
	opts      Options
	log       func() *slog.Logger
	hosts     hosts
	closing   chan struct{}

	served, refused, rejections, responses atomic.Uint64 // see Stats

	mu        sync.Mutex // before service.mu
	services  map[string]*service
	lingering []*service // the first is the next to go
	streams   map[*stream]bool
}

var (
	errClosed       = errors.New("the xDS server was closed")
	errStreamClosed = status.Error(codes.Unavailable, errClosed.Error())
)

// NewServer returns a Server, to be closed by the caller before the Directory is.
func NewServer(directory *rollcall.Directory, opts Options) (*Server, error) {
	if directory == nil {
		return nil, errors.New("xds: no Directory; make one with rollcall.NewDirectory")
	}
	if err := opts.validate(); err != nil {
		return nil, err
	}
	s := &Server{directory: directory, opts: opts, log: directory.Logger, closing: make(chan struct{}),
		services: make(map[string]*service), streams: make(map[*stream]bool)}
	if opts.Logger != nil {
		s.log = func() *slog.Logger { return opts.Logger }
	}
	s.hosts.open(opts.LookupHost)
	return s, nil
}

// Register adds the Server to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// Close ends all streams, and what follows their services. Calling it again does nothing.
func (s *Server) Close() {
	s.mu.Lock()
	if s.services == nil {
		s.mu.Unlock()
		return
	}
	close(s.closing)
	services := s.services
	s.services = nil
	for _, is := range s.lingering {
		is.linger.Stop()
	}
	s.lingering = nil
	s.mu.Unlock()
	var closing sync.WaitGroup
	for _, is := range services {
		closing.Go(is.close)
	}
	closing.Wait()
	s.hosts.close()
}

// acquire returns a service, to be released, and begins to follow it if nobody does.
func (s *Server) acquire(name string) (*service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.services == nil {
		return nil, errClosed
	}
	is := s.services[name]
	if is == nil {
		if len(s.services) >= s.opts.MaxServices {
			return nil, fmt.Errorf("the xDS server follows %d services already, and %q is not among them", len(s.services), name)
		}
		var err error
		if is, err = newService(s, name); err != nil {
			return nil, err
		}
		s.services[name] = is
	}
	if is.refs++; is.linger != nil {
		is.linger.Stop()
		s.removeLingering(is)
	}
	return is, nil
}

// release begins to end a service that nobody uses. Of those only so many linger as one stream
// may ask for: names that a client makes up end soon.
func (s *Server) release(is *service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if is.refs--; is.refs > 0 || s.services == nil {
		return
	}
	is.linger = time.AfterFunc(s.opts.Linger, func() { s.end(is) })
	if s.lingering = append(s.lingering, is); len(s.lingering) > s.opts.MaxNames {
		s.lingering[0].linger.Reset(0)
		s.lingering = slices.Delete(s.lingering, 0, 1)
	}
}

func (s *Server) removeLingering(is *service) {
	is.linger = nil
	s.lingering = slices.DeleteFunc(s.lingering, func(other *service) bool { return other == is })
}

// end stops following a service, unless a client has come back.
func (s *Server) end(is *service) {
	s.mu.Lock()
	gone := is.refs == 0 && is.linger != nil && s.services[is.name] == is
	if gone {
		delete(s.services, is.name)
		s.removeLingering(is)
	}
	s.mu.Unlock()
	if gone {
		is.close()
	}
}
