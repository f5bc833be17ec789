// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/reflector"
)

// List reads a service from etcd itself, linearizably: what was written before the
// call is there. While etcd cannot be reached or is overloaded, it waits until the context ends; the error
// then wraps the context's and the reason why etcd did not answer.
func (d *Directory) List(ctx context.Context, service string) (*Snapshot, error) {
	if err := checkService(service); err != nil {
		return nil, err
	}
	return d.ListPrefix(ctx, service+"/")
}

// ListPrefix is List for every key that starts with prefix.
func (d *Directory) ListPrefix(ctx context.Context, prefix string) (*Snapshot, error) {
	if err := d.usable(); err != nil {
		return nil, fmt.Errorf("list %q: %w", prefix, err)
	}
	var retry backoff.Backoff
	var cause error // why etcd has not answered
	for {
		recovered := d.recovered()
		var got *listing
		at, err := d.group.List(ctx, etcdkv.Prefix(prefix), func() reflector.Adder {
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
				return nil, fmt.Errorf("list %q: %w", prefix, d.because(ctx, ctx.Err()))
			}
			return nil, fmt.Errorf("list %q: %w: %w", prefix, ctx.Err(), cause)
		}
	}
}

// ServiceConfig reads the service config of a service from etcd itself, linearizably. Its
// JSON is nil where the service has none.
func (d *Directory) ServiceConfig(ctx context.Context, service string) (*ServiceConfig, error) {
	err := cmp.Or(checkService(service), d.usable())
	var resp *clientv3.GetResponse
	if err == nil {
		resp, err = etcdkv.Get(ctx, d.client, ConfigPrefix+service)
	}
	if err != nil {
		return nil, fmt.Errorf("read the service config of %q: %w", service, d.because(ctx, err))
	}
	if len(resp.Kvs) == 0 {
		return &ServiceConfig{Service: service}, nil
	}
	return decodeServiceConfig(resp.Kvs[0]), nil
}

// ErrConfigChanged is returned by PutServiceConfig and DeleteServiceConfig if the service config was
// changed meanwhile.
var ErrConfigChanged = errors.New("the service config was changed meanwhile; nothing was written")

// PutServiceConfig writes the service config of a service, if config.ModRevision still is
// that of the one that it replaces, 0 for none, and returns it as written. Its JSON must be an
// object, and the service must have a name, else it is an *InputError;
// resolver.CheckServiceConfig checks it as gRPC does.
func (d *Directory) PutServiceConfig(ctx context.Context, config ServiceConfig) (*ServiceConfig, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(config.JSON, &fields); err != nil || fields == nil {
		return nil, inputError("service config", string(config.JSON), "it is not a JSON object")
	}
	revision, err := d.writeConfig(ctx, config, func(key string) clientv3.Op { return clientv3.OpPut(key, string(config.JSON)) })
	if err != nil {
		return nil, fmt.Errorf("write the service config of %q: %w", config.Service, err)
	}
	config.ModRevision, config.wholeKey = revision, ConfigPrefix+config.Service
	return &config, nil
}

// DeleteServiceConfig deletes the service config of a service, if it still is the one given.
func (d *Directory) DeleteServiceConfig(ctx context.Context, config ServiceConfig) error {
	if _, err := d.writeConfig(ctx, config, func(key string) clientv3.Op { return clientv3.OpDelete(key) }); err != nil {
		return fmt.Errorf("delete the service config of %q: %w", config.Service, err)
	}
	return nil
}

func (d *Directory) writeConfig(ctx context.Context, config ServiceConfig, write func(key string) clientv3.Op) (revision int64, err error) {
	if err := cmp.Or(checkService(config.Service), d.usable()); err != nil {
		return 0, err
	}
	key := ConfigPrefix + config.Service // taken as it is, as by Subscribe
	call, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), etcdkv.CallTimeout)
	defer cancel()
	done, err := d.client.Txn(call).If(clientv3.Compare(clientv3.ModRevision(key), "=", config.ModRevision)).Then(write(key)).Commit()
	switch err := etcdkv.Explain(ctx, d.client, err); {
	case err != nil:
		return 0, d.because(ctx, err)
	case !done.Succeeded:
		return 0, ErrConfigChanged
	}
	return done.Header.Revision, nil
}

// because adds to the error of a context that has ended why etcd did not answer.
func (d *Directory) because(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%w: %w", err, cmp.Or(d.outage(), etcdkv.Disconnected(context.WithoutCancel(ctx), d.client), etcdkv.NoAnswer(d.client)))
}
