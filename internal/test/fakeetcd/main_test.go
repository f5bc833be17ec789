// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// env is a store with one client in a bubble.
type env struct {
	*testing.T
	ctx   context.Context
	store *Store
	conn  *Conn
	cli   *clientv3.Client
}

// bubble runs a test in a bubble, which fails if a goroutine outlives Close.
func bubble(t *testing.T, test func(e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &env{T: t, ctx: t.Context(), store: New()}
		e.conn = e.store.Connect(context.Background())
		e.cli = e.conn.Client
		defer e.store.Close()
		test(e)
	})
}

func (e *env) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(e.ctx, d)
	e.Cleanup(cancel)
	return ctx
}

func (e *env) put(key, value string, opts ...clientv3.OpOption) *clientv3.PutResponse {
	e.Helper()
	resp, err := e.cli.Put(e.ctx, key, value, opts...)
	if err != nil {
		e.Fatalf("put %s: %v", key, err)
	}
	return resp
}

func (e *env) get(key string, opts ...clientv3.OpOption) *clientv3.GetResponse {
	e.Helper()
	resp, err := e.cli.Get(e.ctx, key, opts...)
	if err != nil {
		e.Fatalf("get %s: %v", key, err)
	}
	return resp
}

func (e *env) grant(ttl int64) clientv3.LeaseID {
	e.Helper()
	resp, err := e.cli.Grant(e.ctx, ttl)
	if err != nil {
		e.Fatalf("grant: %v", err)
	}
	return resp.ID
}

// next is what the watch has to say once all is quiet: "nothing", "closed", or
// the response.
func (e *env) next(ch clientv3.WatchChan) string {
	synctest.Wait()
	select {
	case resp, ok := <-ch:
		if !ok {
			return "closed"
		}
		return describe(resp)
	default:
		return "nothing"
	}
}

func (e *env) expect(what string, got, want any) {
	e.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		e.Errorf("%s:\ngot  %s\nwant %s", what, g, w)
	}
}

func (e *env) expectErr(what string, got, want error) {
	e.Helper()
	if !errors.Is(got, want) {
		e.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

func describe(r clientv3.WatchResponse) string {
	var b strings.Builder
	fmt.Fprintf(&b, "rev %d:", r.Header.GetRevision())
	if r.Created {
		b.WriteString(" created")
	}
	if r.IsProgressNotify() {
		b.WriteString(" progress")
	}
	for _, ev := range r.Events {
		fmt.Fprintf(&b, " %s@%d", event(ev), ev.Kv.ModRevision)
		if ev.PrevKv != nil {
			fmt.Fprintf(&b, "(was %s)", ev.PrevKv.Value)
		}
	}
	if r.Canceled {
		fmt.Fprintf(&b, " canceled (%v)", r.Err())
	}
	return b.String()
}

func event(ev *clientv3.Event) string {
	if ev.Type == mvccpb.Event_DELETE {
		return "-" + string(ev.Kv.Key)
	}
	return string(ev.Kv.Key) + "=" + string(ev.Kv.Value)
}

func keys(kvs []*mvccpb.KeyValue) string {
	var out []string
	for _, kv := range kvs {
		out = append(out, string(kv.Key)+"="+string(kv.Value))
	}
	return strings.Join(out, " ")
}
