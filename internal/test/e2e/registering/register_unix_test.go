// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package registering_test

import (
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// Only Unix can pause a process.
func TestL3PausedLongerThanTTL(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	child := startChild(t, etcd.Endpoints()[0])
	there := func(kv *mvccpb.KeyValue) bool { return kv != nil }
	before := becomes(t, direct, childKey, "there", there)
	if err := child.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	becomes(t, direct, childKey, "gone", gone)
	if err := child.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	woken := time.Now()
	after := becomes(t, direct, childKey, "back", there)
	lab.Within(t, "back after waking", woken, 2*time.Second)
	if string(after.Value) != string(before.Value) || after.Lease == before.Lease {
		t.Errorf("got %v, was %v", after, before)
	}
}
