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
	client      *clientv3.Client
	logger      swappableLogger
	group       *reflector.Group
	configs     *configs
	fallbacks   *fallbacks
	checkPeriod time.Duration
	opts        DirectoryOptions

	mu            sync.Mutex // before configs.mu
	closed        bool
	informers     map[etcdkv.KeyRange]*informer
	preservations uint64 // of informers that have ended
}

// NewDirectory returns a Directory of its own, to be closed by the caller. The client stays
// the caller's and must outlive it. Options out of range are an *InputError.
func NewDirectory(client *clientv3.Client, opts DirectoryOptions) (*Directory, error) {
	if client == nil {
		return nil, errors.New("rollcall: the etcd client is nil")
	}
	if err := opts.validate(); err != nil {
		return nil, err
	}
	d := &Directory{client: client, opts: opts, checkPeriod: opts.ConsistencyCheckPeriod, informers: make(map[etcdkv.KeyRange]*informer)}
	d.SetLogger(opts.Logger)
	log := slog.New(&d.logger)
	d.group = reflector.NewGroup(client, log, d.lastKnown)
	d.configs = &configs{dir: d, services: make(map[string]*configTopic)}
	var err error
	if d.fallbacks, err = newFallbacks(opts.CacheDir, log); err != nil {
		return nil, err
	}
	return d, nil
}

var shared struct {
	mu          sync.Mutex
	directories map[*clientv3.Client]*Directory
}

// SharedDirectory returns the client's own Directory, the same at every call, which is closed
// with the client.
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
func (d *Directory) SetLogger(log *slog.Logger) { d.logger.to.Store(log) }

// Logger returns the logger in use, never nil.
func (d *Directory) Logger() *slog.Logger { return d.logger.logger() }

func (d *Directory) usableLocked() error {
	switch {
	case d.closed:
		return ErrClosed
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
	d.informers = make(map[etcdkv.KeyRange]*informer)
	clear(d.fallbacks.memory)
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
		recovered := d.recovered()
		var got *listing
		_, at, err := d.group.List(ctx, etcdkv.Prefix(prefix), func() reflector.List {
			got = &listing{prefix: prefix}
			return got
		})
		if err == nil {
			return (&Snapshot{prefix: prefix}).replacedBy(got, at), nil
		}
		if ctx.Err() == nil && !etcdkv.IsTemporary(err) {
			return nil, fmt.Errorf("list %q: %w", prefix, err)
		}
		if ctx.Err() == nil {
			cause = err
		}
		if backoff.Sleep(ctx, retry.Next(), recovered) != nil {
			if cause == nil {
				cause = cmp.Or(etcdkv.Disconnected(context.WithoutCancel(ctx), d.client), etcdkv.NoAnswer(d.client))
			}
			return nil, fmt.Errorf("list %q: %w: %w", prefix, ctx.Err(), cause)
		}
	}
}

// outage returns why etcd cannot be reached now, nil where it can, as far as is known.
func (d *Directory) outage() error {
	if status, _ := d.group.Monitor().Status(); status.Outage != nil {
		return status.Outage.Cause
	}
	return nil
}

// recovered returns a channel that closes when waiting longer makes no sense: etcd can be
// reached again, or has another epoch.
func (d *Directory) recovered() <-chan struct{} { return d.group.Monitor().Recovered() }

// silenceOf returns why a Reflector has found nothing yet, nil while there is hope.
func (d *Directory) silenceOf(r *reflector.Reflector) error {
	if cause := d.outage(); cause != nil {
		return cause
	}
	if r.Silence() >= topic.AnswerTimeout {
		return fmt.Errorf("%w within %v", etcdkv.NoAnswer(d.client), topic.AnswerTimeout)
	}
	return nil
}

// swappableLogger is a handler that passes everything on to a logger that can be replaced, to
// slog.Default() where there is none.
type swappableLogger struct{ to atomic.Pointer[slog.Logger] }

func (s *swappableLogger) logger() *slog.Logger {
	if log := s.to.Load(); log != nil {
		return log
	}
	return slog.Default()
}

func (s *swappableLogger) Enabled(ctx context.Context, level slog.Level) bool {
	return s.logger().Handler().Enabled(ctx, level)
}

func (s *swappableLogger) Handle(ctx context.Context, r slog.Record) error {
	return s.logger().Handler().Handle(ctx, r)
}

func (s *swappableLogger) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.logger().Handler().WithAttrs(attrs)
}

func (s *swappableLogger) WithGroup(name string) slog.Handler {
	return s.logger().Handler().WithGroup(name)
}
