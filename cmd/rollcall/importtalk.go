// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// talkLong is talk for an exchange of any length: each request has the deadline, rather than all of them together.
func (a *app) talkLong(ctx context.Context, exchange func(context.Context, *clientv3.Client) error) error {
	return a.talk(ctx, func(_ context.Context, client *clientv3.Client) error {
		client.KV = boundedKV{client.KV, a}
		return exchange(ctx, client)
	})
}

// boundedKV gives each read and transaction a deadline.
type boundedKV struct {
	clientv3.KV
	a *app
}

func (kv boundedKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := kv.a.deadline(ctx)
	defer cancel()
	return kv.KV.Get(ctx, key, opts...)
}

func (kv boundedKV) Txn(ctx context.Context) clientv3.Txn {
	ctx, cancel := kv.a.deadline(ctx)
	return boundedTxn{kv.KV.Txn(ctx), cancel}
}

type boundedTxn struct {
	clientv3.Txn
	cancel context.CancelFunc
}

func (t boundedTxn) If(cs ...clientv3.Cmp) clientv3.Txn   { t.Txn = t.Txn.If(cs...); return t }
func (t boundedTxn) Then(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(ops...); return t }
func (t boundedTxn) Else(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(ops...); return t }

func (t boundedTxn) Commit() (*clientv3.TxnResponse, error) {
	defer t.cancel()
	return t.Txn.Commit()
}
