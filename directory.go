// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// DirectoryOptions are the settings of a Directory; the zero value works.
type DirectoryOptions struct {
	// Logger is told when etcd becomes unreachable or refuses access to services, once a
	// minute while that lasts, and when it is over; of a lost history and of differences
	// found. Nothing is logged per retry, service or channel. Default: slog.Default().
	Logger *slog.Logger

	// CacheDir is a directory where the last snapshot of each service is kept, so that a
	// process that starts while etcd is away begins with it, stale, until etcd answers. One
	// directory for one etcd cluster; several processes may share it. Default: none.
	CacheDir string
	// Hold keeps instances that vanish in a mass callable for a while. Default: nothing.
	SelfPreservation SelfPreservation
	// ConsistencyCheckPeriod is how often a service of up to 1,000 instances is listed to be compared
	// with what the watch has told, jittered; larger ones are less often, in proportion. It
	// finds what no event tells, such as etcd restored from a backup behind everybody's
	// back. A Registrar looks as often for what it deregistered. Default 5 min, at least
	// 1 s; negative: never.
	ConsistencyCheckPeriod time.Duration
}

// Directory serves snapshots of services out of shared watches: one list and one
// watch a service, whatever the number of subscriptions. While nobody is subscribed it
// holds no goroutine, and for half an hour the last snapshots of up to 128 services: who
// subscribes again while etcd is away gets what was known, stale.
type Directory struct {
	client *clientv3.Client
	logger atomic.Pointer[slog.Logger] // nil: slog.Default()
	log    *slog.Logger                // what is logged goes to logger
	lister *lister
	link   *link

	cache      *cache // nil: none
	hold       SelfPreservation
	auditEvery time.Duration
	stats      counters

	mu     sync.Mutex
	closed bool
	feeds  map[etcdkv.KeyRange]*feed
	kept   keeper
	stop   func() // ends and joins the link; nil while there is no feed
}

// NewDirectory returns a Directory of its own, to be closed by the caller. The
// client stays the caller's and must outlive it.
func NewDirectory(client *clientv3.Client, opts DirectoryOptions) (*Directory, error) {
	if client == nil {
		return nil, errors.New("rollcall: the etcd client is nil")
	}
	d := &Directory{client: client, auditEvery: opts.ConsistencyCheckPeriod, feeds: make(map[etcdkv.KeyRange]*feed), kept: make(keeper)}
	d.SetLogger(opts.Logger)
	d.log = slog.New(logSwitch{&d.logger})
	d.link = newLink(client, d.log)
	d.lister = newLister(client, d.link)
	if d.auditEvery == 0 {
		d.auditEvery = auditEvery
	}
	if 0 < d.auditEvery && d.auditEvery < time.Second || d.auditEvery > 365*24*time.Hour {
		return nil, inputError("audit period", d.auditEvery.String(), "it must be from 1s to a year, or negative for never")
	}
	var err error
	if d.hold, err = opts.SelfPreservation.withDefaults(); err != nil {
		return nil, err
	}
	if opts.CacheDir != "" {
		if d.cache, err = newCache(opts.CacheDir, d.log); err != nil {
			return nil, err
		}
	}
	return d, nil
}

var shared struct {
	mu          sync.Mutex
	directories map[*clientv3.Client]*Directory
}

// SharedDirectory returns the client's own Directory, the same at every call, which
// is closed with the client.
func SharedDirectory(client *clientv3.Client) (*Directory, error) {
	if client == nil {
		return NewDirectory(client, DirectoryOptions{})
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if d := shared.directories[client]; d != nil {
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
		delete(shared.directories, client)
		shared.mu.Unlock()
		d.Close()
	})
	return d, nil
}

// Client returns the client that the Directory reads with.
func (d *Directory) Client() *clientv3.Client { return d.client }

// SetLogger replaces the logger, that of the shared Directory for instance. Nil is
// slog.Default().
func (d *Directory) SetLogger(log *slog.Logger) { d.logger.Store(log) }

// Logger returns the logger in use, never nil.
func (d *Directory) Logger() *slog.Logger { return logSwitch{&d.logger}.logger() }

// Subscribe follows the instances of a service: every key under "<service>/" and
// nothing else. The name is taken as it is; ParseService normalises what users type.
func (d *Directory) Subscribe(service string) (*Subscription, error) {
	return d.SubscribePrefix(service + "/")
}

// SubscribePrefix follows every key that starts with prefix, for views of many
// services; an empty prefix is the whole store.
func (d *Directory) SubscribePrefix(prefix string) (*Subscription, error) {
	return d.subscribe(etcdkv.Prefix(prefix), prefix, make(chan struct{}, 1))
}

// ConfigPrefix and the name of a service are the key of its gRPC service config, as JSON.
const ConfigPrefix = "_grpc_config/"

// SubscribeConfig follows the service config of a service: Snapshot.ServiceConfig has it.
// Without the right to read it, it is asked for again every 5 min.
func (d *Directory) SubscribeConfig(service string) (*Subscription, error) {
	return d.subscribeKey(ConfigPrefix+service, make(chan struct{}, 1))
}

// subscribeKey follows one key and wakes a channel that may serve others as well.
func (d *Directory) subscribeKey(key string, changed chan struct{}) (*Subscription, error) {
	return d.subscribe(etcdkv.SingleKey(key), key, changed)
}

func (d *Directory) subscribe(s etcdkv.KeyRange, prefix string, changed chan struct{}) (*Subscription, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	if d.client.Ctx().Err() != nil {
		return nil, etcdkv.ErrClientClosed
	}
	f := d.feeds[s]
	if f == nil {
		f = newFeed(d, s, prefix, d.kept.take(s))
		d.feeds[s] = f
		d.link.access(f, accessUnknown)
		if d.stop == nil {
			d.link.reset()
			d.stop = start(d.link.run)
		}
		f.stop = f.start()
	}
	return f.subscribe(changed), nil
}

// release ends a feed whose last subscription was closed, and joins what ends.
func (d *Directory) release(f *feed) {
	d.mu.Lock()
	var stop, stopLink func()
	if f.idle() && d.feeds[f.span] == f {
		delete(d.feeds, f.span)
		stop = f.stop
		if snap := f.known(); snap != nil && f.span.End != "" {
			d.kept.put(f.span, snap)
		}
		if len(d.feeds) == 0 {
			stopLink, d.stop = d.stop, nil
		}
	}
	d.mu.Unlock()
	if stop != nil {
		stop()
	}
	if stopLink != nil {
		stopLink()
	}
}

// Close ends every watch and joins what was started, but waits for what Deliver calls for
// no more than 50 ms; subscriptions keep their last snapshot and get no other.
func (d *Directory) Close() {
	d.mu.Lock()
	d.closed = true
	feeds, stopLink := d.feeds, d.stop
	d.feeds, d.kept, d.stop = make(map[etcdkv.KeyRange]*feed), make(keeper), nil
	d.mu.Unlock()
	var deliveries []<-chan struct{}
	for _, f := range feeds {
		f.stop()
		deliveries = append(deliveries, f.end(ErrClosed)...)
	}
	await(deliveries)
	if stopLink != nil {
		stopLink()
	}
	if d.cache != nil {
		d.cache.close()
	}
}

// List reads a service from etcd itself, linearizably: what was written before the
// call is there. While etcd cannot be reached it waits until the context ends; the error
// then wraps the context's and the reason why etcd did not answer.
func (d *Directory) List(ctx context.Context, service string) (*Snapshot, error) {
	return d.ListPrefix(ctx, service+"/")
}

// ListPrefix is List for every key that starts with prefix.
func (d *Directory) ListPrefix(ctx context.Context, prefix string) (*Snapshot, error) {
	var retry backoff.Backoff
	var cause error // why etcd has not answered
	for {
		back := d.link.recovery()
		got, err := d.lister.list(ctx, etcdkv.Prefix(prefix), false, nil)
		if err == nil {
			return (&Snapshot{prefix: prefix}).relisted(got, 0), nil
		}
		if ctx.Err() == nil && !etcdkv.IsTemporary(err) {
			return nil, fmt.Errorf("list %q: %w", prefix, err)
		}
		if ctx.Err() == nil {
			cause = err
		}
		if backoff.Sleep(ctx, retry.Next(), back) != nil {
			if cause == nil {
				cause = cmp.Or(etcdkv.Disconnected(context.WithoutCancel(ctx), d.client), etcdkv.NoAnswer(d.client))
			}
			return nil, fmt.Errorf("list %q: %w: %w", prefix, ctx.Err(), cause)
		}
	}
}

// start runs a function in a goroutine and returns what cancels and joins it.
func start(run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { run(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

// outage returns why etcd cannot be reached now, nil where it can, as far as is known.
func (d *Directory) outage() error {
	if v, _ := d.link.current(); v.down != nil {
		return v.down.Cause
	}
	return nil
}

// recovered returns a channel that closes when waiting longer makes no sense: etcd can be
// reached again, or has another epoch.
func (d *Directory) recovered() <-chan struct{} { return d.link.recovery() }
