// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestSumMetric(t *testing.T) {
	const text = `# HELP calls Calls.
# TYPE calls counter
calls{code="OK",method="Get"} 3
calls{code="OK",method="GetAll"} 5
calls{code="a, b",method="Get"} 7
calls_created{code="OK",method="Get"} 1.7e+09
watchers 12
`
	for _, c := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"calls", nil, 15},
		{"calls", []string{"method=Get"}, 10},
		{"calls", []string{"method=Get", "code=OK"}, 3},
		{"calls", []string{"code=a, b"}, 7},
		{"calls", []string{"code=O"}, 0},
		{"calls_created", nil, 1.7e9},
		{"watchers", nil, 12},
		{"watchers", []string{"a=b"}, 0},
		{"none", nil, 0},
	} {
		got, err := sumMetric(strings.NewReader(text), c.name, c.labels)
		if err != nil || got != c.want {
			t.Errorf("%s %q: got %v, %v; want %v", c.name, c.labels, got, err, c.want)
		}
	}
	if _, err := sumMetric(strings.NewReader("calls many"), "calls", nil); err == nil {
		t.Error("a value that is no number: no error")
	}
}

func TestMetric(t *testing.T) {
	for name, opts := range map[string]Options{"plain": {}, "tls": {TLS: NewCA(t)}} {
		t.Run(name, func(t *testing.T) {
			c := New(t, opts)
			client, m := c.Client(t), c.Member(0)
			const handled = "grpc_server_handled_total"
			before := m.Metric(t, handled, "grpc_method=Put", "grpc_code=OK")
			put(t, client, "k", "v")
			put(t, client, "k", "v")
			if got := m.Metric(t, handled, "grpc_method=Put", "grpc_code=OK") - before; got != 2 {
				t.Errorf("%s counts %v puts, want 2", handled, got)
			}
			const watchers = "etcd_debugging_mvcc_watcher_total"
			idle := m.Metric(t, watchers)
			for resp := range client.Watch(t.Context(), "k", clientv3.WithCreatedNotify()) {
				if resp.Created {
					break
				}
			}
			if got := m.Metric(t, watchers) - idle; got != 1 {
				t.Errorf("%s counts %v more, want 1", watchers, got)
			}
		})
	}
}
