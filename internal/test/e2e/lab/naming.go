// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	etcdendpoints "go.etcd.io/etcd/client/v3/naming/endpoints"
	etcdresolver "go.etcd.io/etcd/client/v3/naming/resolver"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// Naming is one of the two packages, with the types of this one.
type Naming struct {
	Name       string
	NewManager func(*clientv3.Client, string) (endpoints.Manager, error)
	NewBuilder func(*clientv3.Client) (grpcresolver.Builder, error)
}

var (
	Rollcall = Naming{Name: "rollcall", NewManager: endpoints.NewManager, NewBuilder: resolver.NewBuilder}
	Etcd     = Naming{Name: "etcd", NewManager: newEtcdManager, NewBuilder: etcdresolver.NewBuilder}
)

// etcdManager is etcd's manager with its types converted.
type etcdManager struct{ m etcdendpoints.Manager }

func newEtcdManager(client *clientv3.Client, target string) (endpoints.Manager, error) {
	m, err := etcdendpoints.NewManager(client, target)
	return etcdManager{m}, err
}

func (a etcdManager) Update(ctx context.Context, updates []*endpoints.UpdateWithOpts) error {
	converted := make([]*etcdendpoints.UpdateWithOpts, len(updates))
	for i, u := range updates {
		if u == nil {
			continue
		}
		converted[i] = &etcdendpoints.UpdateWithOpts{Opts: u.Opts, Update: etcdendpoints.Update{
			Op: etcdendpoints.Operation(u.Op), Key: u.Key, Endpoint: etcdendpoints.Endpoint(u.Endpoint)}}
	}
	return a.m.Update(ctx, converted)
}

func (a etcdManager) AddEndpoint(ctx context.Context, key string, ep endpoints.Endpoint, opts ...clientv3.OpOption) error {
	return a.m.AddEndpoint(ctx, key, etcdendpoints.Endpoint(ep), opts...)
}

func (a etcdManager) DeleteEndpoint(ctx context.Context, key string, opts ...clientv3.OpOption) error {
	return a.m.DeleteEndpoint(ctx, key, opts...)
}

func (a etcdManager) List(ctx context.Context) (endpoints.Key2EndpointMap, error) {
	listed, err := a.m.List(ctx)
	if listed == nil {
		return nil, err
	}
	all := make(endpoints.Key2EndpointMap, len(listed))
	for key, ep := range listed {
		all[key] = endpoints.Endpoint(ep)
	}
	return all, err
}

func (a etcdManager) NewWatchChannel(ctx context.Context) (endpoints.WatchChannel, error) {
	in, err := a.m.NewWatchChannel(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan []*endpoints.Update)
	go func() {
		defer close(out)
		for updates := range in {
			converted := make([]*endpoints.Update, len(updates))
			for i, u := range updates {
				converted[i] = &endpoints.Update{Op: endpoints.Operation(u.Op), Key: u.Key, Endpoint: endpoints.Endpoint(u.Endpoint)}
			}
			select {
			case out <- converted:
			case <-ctx.Done(): // go on reading: etcd's manager waits for its reader
			}
		}
	}()
	return out, nil
}

// Directory returns a client's shared Directory.
func Directory(t testing.TB, client *clientv3.Client) *rollcall.Directory {
	t.Helper()
	d, err := rollcall.SharedDirectory(client)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
