// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	rollcallprom "github.com/rollcall-grpc/rollcall/metrics/prometheus"
)

// Calls of every kind are counted, streams when they end.
func TestEtcdCalls(t *testing.T) {
	calls := rollcallprom.NewEtcdCalls()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(calls)
	config := rollcall.ClientConfig(etcdtest.New(t, etcdtest.Options{}).Endpoints()...)
	config.DialOptions = append(config.DialOptions, calls.DialOptions()...)
	client, err := rollcall.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	count := func(method, code string) float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			for _, m := range family.GetMetric() {
				if l := m.GetLabel(); l[0].GetValue() == code && l[1].GetValue() == method {
					return m.GetCounter().GetValue()
				}
			}
		}
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for range 3 {
		if _, err := client.Put(ctx, "a", "b"); err != nil {
			t.Fatal(err)
		}
	}
	if n := count("etcdserverpb.KV/Put", "OK"); n != 3 {
		t.Errorf("%v puts, want 3", n)
	}
	if _, err := client.Revoke(ctx, 7); err == nil {
		t.Error("a lease that does not exist was revoked")
	}
	if n := count("etcdserverpb.Lease/LeaseRevoke", "NotFound"); n != 1 {
		t.Errorf("%v revokes not found, want 1", n)
	}
	watching, stop := context.WithCancel(clientv3.WithRequireLeader(ctx))
	client.Watch(watching, "a")
	if n := count("etcdserverpb.Watch/Watch", "Canceled"); n != 0 {
		t.Errorf("%v watch streams ended, want none", n)
	}
	stop()
	for count("etcdserverpb.Watch/Watch", "Canceled") != 1 {
		if ctx.Err() != nil {
			t.Fatal("the end of a watch stream is not counted")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if problems, err := testutil.GatherAndLint(registry); len(problems) > 0 || err != nil {
		t.Errorf("promlint: %+v, %v", problems, err)
	}
}
