// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Metric returns the sum of the member's metrics called name, such as
// "etcd_debugging_mvcc_watcher_total", that have all labels, such as "grpc_method=Range". It is 0 if
// there are none: many metrics appear only with their first event.
func (m *Member) Metric(tb testing.TB, name string, labels ...string) float64 {
	tb.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	if m.cluster.ca != nil {
		transport.TLSClientConfig = m.cluster.ca.ClientConfig(m.cluster.cert)
	}
	client := http.Client{Transport: transport, Timeout: 10 * time.Second}
	resp, err := client.Get(m.URL() + "/metrics")
	if err != nil {
		tb.Fatalf("etcdtest: metrics of %s: %v", m.name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		tb.Fatalf("etcdtest: metrics of %s: %s", m.name, resp.Status)
	}
	sum, err := sumMetric(resp.Body, name, labels)
	if err != nil {
		tb.Fatalf("etcdtest: metrics of %s: %v", m.name, err)
	}
	return sum
}

// sumMetric parses Prometheus's text format as etcd writes it: without timestamps, and without
// quotes or braces in label values.
func sumMetric(r io.Reader, name string, labels []string) (sum float64, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		series, value, ok := cutLast(lines.Text(), " ")
		got, set, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		if !ok || got != name || !hasLabels(set, labels) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", lines.Text(), err)
		}
		sum += v
	}
	return sum, lines.Err()
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// hasLabels reports whether set, such as a="b",c="d", has all labels, such as a=b.
func hasLabels(set string, labels []string) bool {
	for _, label := range labels {
		key, value, _ := strings.Cut(label, "=")
		if !strings.Contains(","+set+",", fmt.Sprintf(",%s=%q,", key, value)) {
			return false
		}
	}
	return true
}
