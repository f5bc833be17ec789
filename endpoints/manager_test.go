// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package endpoints_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// deadline bounds a test: machines that run it may be busy.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func newManager(t *testing.T, client *clientv3.Client, target string) endpoints.Manager {
	t.Helper()
	m, err := endpoints.NewManager(client, target)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, m endpoints.Manager) endpoints.Key2EndpointMap {
	t.Helper()
	all, err := m.List(deadline(t))
	must(t, err)
	return all
}

func add(key, addr string, opts ...clientv3.OpOption) *endpoints.UpdateWithOpts {
	return endpoints.NewAddUpdateOpts(key, endpoints.Endpoint{Addr: addr}, opts...)
}

func TestNewManagerRefusesNothing(t *testing.T) {
	if _, err := endpoints.NewManager(nil, "svc"); err == nil {
		t.Error("no error without a client")
	}
	if _, err := endpoints.NewManager(&clientv3.Client{}, "svc"); err == nil || !strings.Contains(err.Error(), "NewCtxClient") {
		t.Errorf("a client without a context: %v, want an error that names what makes one", err)
	}
	client := clientv3.NewCtxClient(deadline(t))
	defer client.Close()
	if _, err := endpoints.NewManager(client, ""); err == nil {
		t.Error("no error without a target")
	}
}

// A refused update needs no etcd to be refused.
func TestUpdateRefusesWhatCanNeverWork(t *testing.T) {
	client := clientv3.NewCtxClient(deadline(t))
	defer client.Close()
	m := newManager(t, client, "foo")
	for name, update := range map[string]*endpoints.UpdateWithOpts{
		"nil":               nil,
		"key of another":    add("foo-2/x", "a:1"),
		"key is the target": add("foo", "a:1"),
		"empty key":         endpoints.NewDeleteUpdateOpts(""),
		"operation":         {Update: endpoints.Update{Op: 2, Key: "foo/x"}},
		"no address":        add("foo/x", ""),
		"a channel":         endpoints.NewAddUpdateOpts("foo/x", endpoints.Endpoint{Addr: "a:1", Metadata: make(chan int)}),
		"not a number":      endpoints.NewAddUpdateOpts("foo/x", endpoints.Endpoint{Addr: "a:1", Metadata: math.NaN()}),
		"range":             endpoints.NewDeleteUpdateOpts("foo/x", clientv3.WithFromKey()),
		"misfit option":     add("foo/x", "a:1", clientv3.WithPrefix()),
		"nil option":        add("foo/x", "a:1", nil),
		"another value":     add("foo/x", "a:1", func(op *clientv3.Op) { op.WithValueBytes([]byte("nothing")) }),
		"too much metadata": endpoints.NewAddUpdateOpts("foo/x", endpoints.Endpoint{Addr: "a:1", Metadata: strings.Repeat("m", 1<<20)}),
	} {
		t.Run(name, func(t *testing.T) {
			err := m.Update(deadline(t), []*endpoints.UpdateWithOpts{add("foo/good", "a:1"), update})
			if status.Code(err) != codes.InvalidArgument || !strings.HasPrefix(status.Convert(err).Message(), "endpoints: ") {
				t.Errorf("got %v, want InvalidArgument", err)
			}
		})
	}
}

// What the server, or the client for it, finds too large is one typed error, and
// nothing of it is written.
func TestUpdateOverLimit(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	m := newManager(t, client, "foo")
	updates := func(n, size int) (all []*endpoints.UpdateWithOpts) {
		for i := range n {
			all = append(all, endpoints.NewAddUpdateOpts(fmt.Sprintf("foo/%04d", i),
				endpoints.Endpoint{Addr: "a:1", Metadata: strings.Repeat("m", size)}))
		}
		return all
	}
	const mebi = 1 << 20
	for name, tt := range map[string]struct {
		updates []*endpoints.UpdateWithOpts
		bytes   int
		cause   error
	}{
		"129 operations":          {updates(129, 1), 129, rpctypes.ErrTooManyOps},
		"1.5 MiB, by the server":  {updates(16, mebi/10), 16 * mebi / 10, rpctypes.ErrRequestTooLarge},
		"2 MiB, by the client":    {updates(24, mebi/10), 24 * mebi / 10, nil},
		"128 operations and more": {updates(200, mebi/10), 20 * mebi, nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := m.Update(deadline(t), tt.updates)
			var limit *endpoints.LimitError
			if !errors.As(err, &limit) {
				t.Fatalf("got %v, want a LimitError", err)
			}
			if limit.Operations != len(tt.updates) || limit.Bytes < tt.bytes || limit.Bytes > tt.bytes+100*len(tt.updates) {
				t.Errorf("got %d operations, %d bytes, want %d and a little over %d", limit.Operations, limit.Bytes, len(tt.updates), tt.bytes)
			}
			if !errors.Is(err, limit.Cause) || tt.cause != nil && !errors.Is(err, tt.cause) {
				t.Errorf("got cause %v, want %v", limit.Cause, tt.cause)
			}
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "nothing was written") {
				t.Errorf("got %v", err)
			}
			if all := list(t, m); len(all) > 0 {
				t.Errorf("%d endpoints were written", len(all))
			}
		})
	}
	t.Run("at the limit", func(t *testing.T) {
		must(t, m.Update(deadline(t), updates(128, 1)))
		if n := len(list(t, m)); n != 128 {
			t.Errorf("%d endpoints, want 128", n)
		}
	})
	t.Run("other errors pass as they are", func(t *testing.T) {
		var limit *endpoints.LimitError
		err := m.Update(deadline(t), []*endpoints.UpdateWithOpts{add("foo/x", "a:1", clientv3.WithLease(4711))})
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) || errors.As(err, &limit) {
			t.Errorf("got %v", err)
		}
	})
}

// etcd takes a key once in a transaction; deleting and then adding it comes to adding.
func TestUpdateDeletesAndAddsOneKey(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	m := newManager(t, client, "foo")
	del := func(key string) *endpoints.UpdateWithOpts { return endpoints.NewDeleteUpdateOpts(key) }
	both := endpoints.Key2EndpointMap{"foo/a": {Addr: "old:1"}, "foo/b": {Addr: "old:1"}}
	for name, tt := range map[string]struct {
		updates []*endpoints.UpdateWithOpts
		want    endpoints.Key2EndpointMap // nil: refused, both stay
	}{
		"delete, add": {[]*endpoints.UpdateWithOpts{del("foo/a"), add("foo/a", "new:1")},
			endpoints.Key2EndpointMap{"foo/a": {Addr: "new:1"}, "foo/b": {Addr: "old:1"}}},
		"delete, others, add": {[]*endpoints.UpdateWithOpts{del("foo/a"), del("foo/b"), add("foo/c", "new:1"), add("foo/a", "new:1")},
			endpoints.Key2EndpointMap{"foo/a": {Addr: "new:1"}, "foo/c": {Addr: "new:1"}}},
		"add, delete":      {[]*endpoints.UpdateWithOpts{add("foo/a", "new:1"), del("foo/a")}, nil},
		"add, add":         {[]*endpoints.UpdateWithOpts{add("foo/a", "new:1"), add("foo/a", "new:2")}, nil},
		"delete, add, add": {[]*endpoints.UpdateWithOpts{del("foo/a"), add("foo/a", "new:1"), add("foo/a", "new:2")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client.Delete(deadline(t), "foo/", clientv3.WithPrefix())
			must(t, err)
			must(t, m.Update(deadline(t), []*endpoints.UpdateWithOpts{add("foo/a", "old:1"), add("foo/b", "old:1")}))
			err = m.Update(deadline(t), tt.updates)
			want := tt.want
			if want == nil {
				want = both
				if !errors.Is(err, rpctypes.ErrDuplicateKey) {
					t.Errorf("got %v, want etcd's refusal", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(want, list(t, m)); diff != "" {
				t.Errorf("list (-want +got):\n%s", diff)
			}
		})
	}
}

func TestListDecodesMetadata(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := etcd.Client(t)
	m := newManager(t, client, "foo")
	must(t, m.AddEndpoint(deadline(t), "foo/a", endpoints.Endpoint{Addr: "a:1", Metadata: map[string]any{"weight": 3}}))
	must(t, m.AddEndpoint(deadline(t), "foo/b", endpoints.Endpoint{Addr: "b:1"}))
	etcd.Etcdctl(t, "put", "foo/c", `{"Addr":"c:1","Metadata":"..."}`)
	etcd.Etcdctl(t, "put", "foo/d", "not JSON")
	etcd.Etcdctl(t, "put", "foo-2/e", `{"Addr":"e:1"}`)
	want := endpoints.Key2EndpointMap{
		"foo/a": {Addr: "a:1", Metadata: map[string]any{"weight": 3.0}},
		"foo/b": {Addr: "b:1"},
		"foo/c": {Addr: "c:1", Metadata: "..."},
	}
	if diff := cmp.Diff(want, list(t, m)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	ctx, cancel := context.WithCancel(deadline(t))
	cancel()
	if all, err := m.List(ctx); err == nil || all != nil {
		t.Errorf("with a cancelled context: %v, %v", all, err)
	}
}
