// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
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
	Directory *rollcall.Directory    // default: the client's shared one
	Policy    rollcall.AddressPolicy // what is dialled, asked once for each write; default rollcall.HostPort
	Logger    *slog.Logger           // default: silent
}

// NewBuilder returns a builder with default options, for grpc.WithResolvers or
// grpc's resolver.Register. Builders of one client share its watches.
func NewBuilder(client *clientv3.Client) (grpcresolver.Builder, error) {
	return NewBuilderWithOptions(client, Options{})
}

// NewBuilderWithOptions returns a builder. Without a Directory in the options it needs a
// client.
func NewBuilderWithOptions(client *clientv3.Client, opts Options) (grpcresolver.Builder, error) {
	if opts.Directory == nil {
		directory, err := rollcall.SharedDirectory(client)
		if err != nil {
			return nil, err
		}
		opts.Directory = directory
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &builder{opts: opts, views: make(map[string]*shared)}, nil
}

type builder struct {
	opts Options

	mu    sync.Mutex
	views map[string]*shared // by service; those that a channel uses
}

// shared counts the channels that use a view.
type shared struct {
	view     *view
	channels int
}

func (b *builder) acquire(service string) *view {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.views[service]
	if s == nil {
		s = &shared{view: newView(b.opts.Policy)}
		b.views[service] = s
	}
	s.channels++
	return s.view
}

func (b *builder) release(service string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.views[service]
	if s.channels--; s.channels == 0 {
		delete(b.views, service)
	}
}

func (*builder) Scheme() string { return Scheme }

// Build begins to resolve. It does no I/O and fails only for what can never work, such as
// a target that names no service, with a status that ends every call (UNAVAILABLE, since
// gRPC allows a resolver no InvalidArgument).
func (b *builder) Build(target grpcresolver.Target, cc grpcresolver.ClientConn, _ grpcresolver.BuildOptions) (grpcresolver.Resolver, error) {
	service, err := ParseTarget(target.URL)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "rollcall: %v", err)
	}
	sub, err := b.opts.Directory.Subscribe(service)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "rollcall: resolve %q: %v", service, err)
	}
	r := &etcdResolver{cc: cc, sub: sub, view: b.acquire(service), service: service, opts: &b.opts, order: newOrder()}
	r.close = sync.OnceFunc(func() {
		sub.Close()
		b.release(service)
	})
	sub.Deliver(r.deliver)
	return r, nil
}

// etcdResolver feeds one channel from its subscription.
type etcdResolver struct {
	cc      grpcresolver.ClientConn
	sub     *rollcall.Subscription
	view    *view
	service string
	opts    *Options
	order   order
	close   func()

	// Owned by deliver.
	shown int  // version of the view that the channel was told last
	told  bool // it was told of any endpoint
}

// ParseTarget returns the service that a target names. The authority is ignored, as
// etcd's own resolver does; a query or fragment is refused, since one that went
// unnoticed would select nothing. Errors are *rollcall.InputError.
func ParseTarget(u url.URL) (service string, err error) {
	name := u.Path
	if name == "" {
		if name, err = url.PathUnescape(u.Opaque); err != nil {
			return "", targetError(u, err.Error())
		}
	}
	name = strings.TrimPrefix(name, "/")
	if u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return "", targetError(u, `a query or fragment has no meaning here; write "?" as %3F and "#" as %23 if the name holds one`)
	}
	if service, err = rollcall.ParseService(name); err != nil {
		return "", targetError(u, "it names no service; write etcd:///my-service")
	}
	return service, nil
}

func targetError(u url.URL, reason string) error {
	return &rollcall.InputError{Field: "target", Value: u.String(), Reason: reason}
}
