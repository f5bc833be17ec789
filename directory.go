// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/plural"
	"github.com/rollcall-grpc/rollcall/internal/reflector"
	"github.com/rollcall-grpc/rollcall/internal/topic"
)

// defaultCheckPeriod is the default of DirectoryOptions.ConsistencyCheckPeriod.
const defaultCheckPeriod = 5 * time.Minute

// DirectoryOptions are the settings of a Directory; the zero value works.
type DirectoryOptions struct {
	// Logger is told when etcd becomes unreachable or refuses access to services, once a
	// minute while that lasts, and when it is over; of a new epoch of the store and of
	// inconsistencies found. Nothing is logged per retry, service or channel. Default:
	// slog.Default().
	Logger *slog.Logger

	// CacheDir is a directory for the last snapshot of each service. A process that starts
	// while etcd is unreachable begins with it, stale, until etcd answers. Several processes
	// may share a directory, but not clusters. Default: none.
	CacheDir string

	// SelfPreservation keeps instances callable that vanish in a mass. Default: it does not.
	SelfPreservation SelfPreservation

	// ConsistencyCheckPeriod is how often a service of up to 1,000 instances is listed and
	// compared with what its watch has told, jittered; larger ones are less often, in
	// proportion. It finds what no event tells, such as etcd restored from a backup. A
	// Registrar looks as often for what it deregistered. Default 5 min; 1 s to a year.
	ConsistencyCheckPeriod time.Duration
	// NoConsistencyChecks turns the periodic checks off.
	NoConsistencyChecks bool
}

func (o *DirectoryOptions) validate() (err error) {
	if o.ConsistencyCheckPeriod == 0 {
		o.ConsistencyCheckPeriod = defaultCheckPeriod
	}
	if o.ConsistencyCheckPeriod < time.Second || o.ConsistencyCheckPeriod > 365*24*time.Hour {
		return inputError("consistency check period", o.ConsistencyCheckPeriod.String(), "it must be from 1s to a year; NoConsistencyChecks turns them off")
	}
	if o.NoConsistencyChecks {
		o.ConsistencyCheckPeriod = backoff.Never
	}
	o.SelfPreservation, err = o.SelfPreservation.withDefaults()
	return err
}

// Directory serves snapshots of services from shared watches: one list and one watch a
// service, whatever the number of subscriptions, and one more for all service configs. Without
// subscriptions it has no goroutine. It remembers the last snapshots of up to 128 services for
// half an hour: a new subscription gets them, stale, while etcd is unreachable.
type Directory struct {
	source
	configs      *configs
	fallbacks    *fallbacks
	preservation SelfPreservation

	latency topic.Latency

	mu        sync.Mutex // before configs.mu
	closed    bool
	informers map[etcdkv.KeyRange]*informer
	ended     Totals // of informers that have ended
}

// NewDirectory returns a Directory of its own, to be closed by the caller. The client stays
// the caller's and must outlive it. Options out of range are an *InputError.
func NewDirectory(client *clientv3.Client, opts DirectoryOptions) (*Directory, error) {
	if client == nil {
		return nil, errors.New("rollcall: the etcd client is nil")
	}
	if client.Ctx() == nil {
		return nil, errors.New("rollcall: the etcd client has no context; make one with clientv3.New, or of parts with clientv3.NewCtxClient")
	}
	if err := opts.validate(); err != nil {
		return nil, err
	}
	d := &Directory{preservation: opts.SelfPreservation, informers: make(map[etcdkv.KeyRange]*informer)}
	d.client, d.checkPeriod, d.log = client, opts.ConsistencyCheckPeriod, slog.New(&d.logger)
	d.SetLogger(opts.Logger)
	d.group = reflector.NewGroup(client, d.log, d.lastKnown)
	d.configs = &configs{source: &d.source, services: make(map[string]*configTopic)}
	var err error
	if d.fallbacks, err = newFallbacks(opts.CacheDir, d.log, &d.mu); err != nil {
		return nil, err
	}
	return d, nil
}

var shared struct {
	mu          sync.Mutex
	directories map[*clientv3.Client]*Directory
}

// SharedDirectory returns the client's own Directory, the same at every call, which is closed
// with the client: do not close it. If somebody has, another one is returned.
func SharedDirectory(client *clientv3.Client) (*Directory, error) {
	if client == nil {
		return NewDirectory(client, DirectoryOptions{})
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if d := shared.directories[client]; d != nil && !d.isClosed() {
		return d, nil
	}
	d, err := NewDirectory(client, DirectoryOptions{})
	if err != nil {
		return nil, err
	}
	if shared.directories == nil {
		shared.directories = make(map[*clientv3.Client]*Directory)
	}
	shared.directories[client] = d
	context.AfterFunc(client.Ctx(), func() {
		shared.mu.Lock()
		if shared.directories[client] == d {
			delete(shared.directories, client)
		}
		shared.mu.Unlock()
		d.Close()
	})
	return d, nil
}

// Client returns the client that the Directory reads with.
func (d *Directory) Client() *clientv3.Client { return d.client }

// SetLogger replaces the logger, that of the shared Directory for instance. Nil is
// slog.Default().
func (d *Directory) SetLogger(log *slog.Logger) { d.logger.to.Store(log) }

// Logger returns the logger in use, never nil.
func (d *Directory) Logger() *slog.Logger { return d.logger.logger() }

// usable returns why the Directory cannot be used: it or its client was closed.
func (d *Directory) usable() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.usableLocked()
}

func (d *Directory) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

func (d *Directory) usableLocked() error {
	switch {
	case d.closed:
		return errDirectoryClosed
	case d.client.Ctx().Err() != nil:
		return etcdkv.ErrClientClosed
	}
	return nil
}

// Close ends every watch and joins what was started, but waits for 50 ms at most for functions
// of subscriptions that are being called: those end on their own. Subscriptions keep their
// last snapshot and get no other. Calling it again does nothing.
func (d *Directory) Close() {
	d.mu.Lock()
	d.closed = true
	informers := d.informers
	for _, in := range informers {
		d.endedLocked(in)
	}
	d.informers = make(map[etcdkv.KeyRange]*informer)
	d.fallbacks.forgetLocked()
	d.mu.Unlock()
	deliveries := d.configs.close()
	for _, in := range informers {
		in.stop()
		in.store.SetStatus(ErrClosed)
		deliveries = append(deliveries, in.store.topic.Close(ErrClosed)...)
	}
	topic.Await(deliveries)
	d.fallbacks.close()
}

// following is a part in an informer.
type following struct {
	directory *Directory
	informer  *informer
}

func (f *following) latest() *Snapshot { return f.informer.store.topic.Latest() }
func (f *following) refresh()          { f.informer.reflector.Verify() }

// followLocked adds a subscriber to the topic of a key range; prefix is what its snapshots have.
func (d *Directory) followLocked(keys etcdkv.KeyRange, prefix string, subscribe func(*topic.Topic[Snapshot])) (f following, err error) {
	if err := d.usableLocked(); err != nil {
		return f, err
	}
	in := d.informers[keys]
	if in == nil {
		in = newInformer(&d.source, keys, prefix, d.preservation, &d.latency, d.fallbacks, d.fallbacks.takeLocked(keys))
		d.informers[keys] = in
		defer in.store.topic.RemindLater()
	}
	subscribe(in.store.topic)
	return following{d, in}, nil
}

// release ends an informer whose last subscriber has left, joins it, and remembers what it
// knew.
func (d *Directory) release(in *informer) {
	d.mu.Lock()
	last := in.store.topic.Count() == 0 && d.informers[in.keys] == in
	if last {
		delete(d.informers, in.keys)
		d.endedLocked(in)
		if snap := in.store.topic.Known(); snap != nil && !in.keys.IsSingleKey() {
			d.fallbacks.rememberLocked(in.keys, snap)
		}
	}
	d.mu.Unlock()
	if last {
		in.stop()
		in.store.topic.Close(ErrClosed) // which ends its reminders
	}
}

// endedLocked keeps the figures of an informer that ends.
func (d *Directory) endedLocked(in *informer) {
	if !in.keys.IsSingleKey() {
		d.ended = d.ended.Plus(in.store.totals())
	}
}

// lastKnown describes the endpoints that are known, for the log of an outage; "" if there are none.
func (d *Directory) lastKnown() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var known []*informer
	for keys, in := range d.informers {
		if in.store.topic.Known() != nil && !keys.IsSingleKey() {
			known = append(known, in)
		}
	}
	slices.SortFunc(known, func(a, b *informer) int { return strings.Compare(a.prefix(), b.prefix()) })
	var outer *informer
	var services, endpoints int
	var revision int64
	for _, in := range known {
		if outer != nil && strings.HasPrefix(in.prefix(), outer.prefix()) {
			continue // it has these
		}
		outer = in
		snap := in.store.topic.Known()
		services += in.countServices(snap)
		endpoints += len(snap.instances)
		revision = max(revision, snap.revision)
	}
	if endpoints == 0 {
		return ""
	}
	return fmt.Sprintf("%s of %s as of revision %d", plural.Count(endpoints, "endpoint", "endpoints"), plural.Count(services, "service", "services"), revision)
}
