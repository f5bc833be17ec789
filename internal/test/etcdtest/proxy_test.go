// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestProxy(t *testing.T) {
	c := New(t, Options{})
	p := StartProxy(t, c.Endpoints()...)
	direct := c.Client(t)
	through := c.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = []string{p.Addr()} })
	put(t, direct, "k", "v1")
	wantValue(t, through, "k", "v1")

	p.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := through.Get(ctx, "k"); err == nil {
		t.Error("a paused proxy answered")
	}
	p.Resume()
	wantValue(t, through, "k", "v1")

	for _, end := range []func(){p.Stop, p.Kill} {
		end()
		if p.Running() {
			t.Error("Running() after its end")
		}
		p.Start()
		p.WaitReady()
		wantValue(t, through, "k", "v1")
	}
	put(t, through, "k", "v2")
	wantValue(t, direct, "k", "v2")
}
