// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
)

// Scheme is the scheme of targets: "etcd:///my-service".
const Scheme = "etcd"

// Options are the settings of a builder; the zero value works.
type Options struct {
	// Policy says which addresses may be dialled. It is asked for each write, and again
	// while self-preservation retains instances or all are draining. Default:
	// rollcall.HostPort.
	Policy rollcall.AddressPolicy

	// Logger is told of invalid service configs and disallowed addresses. Default: the
	// Directory's.
	Logger *slog.Logger

	// DefaultServiceConfig is the service config, as JSON, of services that have none in
	// etcd; one that is in etcd is laid over it, field by field of the outermost object.
	// Default: none, so that grpc.WithDefaultServiceConfig applies.
	DefaultServiceConfig string
}

// NewBuilder returns a builder with default options on the client's shared Directory, for
// grpc.WithResolvers or grpc's resolver.Register. Builders of one client share its watches.
//
// # Experimental
//
// It rests on gRPC's package resolver, which is experimental.
func NewBuilder(client *clientv3.Client) (grpcresolver.Builder, error) {
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		return nil, err
	}
	return NewBuilderWithOptions(directory, Options{})
}

// NewBuilderWithOptions returns a builder on a Directory, which must stay open while its
// channels are used. A default service config that gRPC rejects is a *rollcall.InputError.
//
// # Experimental
//
// It rests on gRPC's package resolver, which is experimental.
func NewBuilderWithOptions(directory *rollcall.Directory, opts Options) (grpcresolver.Builder, error) {
	b, err := newBuilder(directory, opts)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func newBuilder(directory *rollcall.Directory, opts Options) (*builder, error) {
	if directory == nil {
		return nil, errors.New("resolver: no Directory; make one with rollcall.NewDirectory, or call NewBuilder with an etcd client")
	}
	if opts.DefaultServiceConfig != "" {
		if err := CheckServiceConfig(opts.DefaultServiceConfig); err != nil {
			return nil, err
		}
	}
	logger := directory.Logger
	if opts.Logger != nil {
		logger = func() *slog.Logger { return opts.Logger }
	}
	return &builder{directory: directory, opts: opts, log: &onceLog{logger: logger}, selections: make(map[name]*sharedSelection)}, nil
}

type builder struct {
	directory *rollcall.Directory
	opts      Options
	log       *onceLog
	// under is what a service config in etcd is laid over where there is no
	// DefaultServiceConfig. Nothing is sent until there is one in etcd.
	under string

	mu         sync.Mutex
	selections map[name]*sharedSelection // those that a channel uses
}

// name is what channels with the same selection ask for.
type name struct{ service, selector string }

func (b *builder) acquire(n name, selector rollcall.Selector) *sharedSelection {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.selections[n]
	if s == nil {
		s = newSharedSelection(selector, b.opts.Policy)
		b.selections[n] = s
	}
	s.channels++
	return s
}

func (b *builder) release(n name) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.selections[n]
	if s.channels--; s.channels == 0 {
		delete(b.selections, n)
	}
}

func (*builder) Scheme() string { return Scheme }

// Build begins to resolve. It does no I/O and fails only for what can never work, such as
// a target that names no service, with a status that ends every call (UNAVAILABLE, since
// gRPC allows a resolver no InvalidArgument).
func (b *builder) Build(target grpcresolver.Target, cc grpcresolver.ClientConn, opts grpcresolver.BuildOptions) (grpcresolver.Resolver, error) {
	service, selector, err := ParseTarget(target.URL)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "rollcall: %v", err)
	}
	n, cc := name{service, selector.String()}, counted(cc, target, opts)
	r := &etcdResolver{cc: cc, builder: b, selection: b.acquire(n, selector), host: target.Endpoint(),
		name: n, log: b.log, order: newOrder(), turn: make(chan struct{}, 1)}
	r.turn <- struct{}{} // deliveries wait until all is set
	defer func() { <-r.turn }()
	if opts.DisableServiceConfig {
		r.sub, err = b.directory.SubscribeFunc(service, r.deliver)
	} else {
		r.config.start(cc, b.opts.DefaultServiceConfig, b.under)
		r.sub, r.configs, err = b.directory.SubscribeServiceFunc(service, r.deliver, r.deliverConfig)
	}
	if err != nil {
		b.release(n)
		return nil, status.Errorf(codes.Unavailable, "rollcall: resolve %q: %v", service, err)
	}
	return r, nil
}

// ParseTarget returns the service that a target names, and the selector that its query is.
// The authority is ignored, as etcd's own resolver does; a fragment is an error, since one
// that was ignored would select nothing. Errors are *rollcall.InputError.
func ParseTarget(u url.URL) (service string, selector rollcall.Selector, err error) {
	name := u.Path
	if name == "" {
		if name, err = url.PathUnescape(u.Opaque); err != nil {
			return "", selector, targetError(u, err.Error())
		}
	}
	name = strings.TrimPrefix(name, "/")
	if u.Fragment != "" {
		return "", selector, targetError(u, `a fragment has no meaning here; write "#" as %23 if it is part of the name`)
	}
	if u.RawQuery != "" { // parsing needs more stack than anything else here: see the scenario connections of module bench
		if selector, err = rollcall.ParseSelector(u.RawQuery); err != nil {
			return "", selector, targetError(u, err.Error()+`; write "?" as %3F if it is part of the name`)
		}
	}
	if service, err = rollcall.ParseService(name); err != nil {
		return "", selector, targetError(u, "it names no service; write etcd:///my-service")
	}
	return service, selector, nil
}

func targetError(u url.URL, reason string) error {
	return &rollcall.InputError{Field: "target", Value: u.String(), Reason: reason}
}
