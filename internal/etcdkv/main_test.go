// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test on a store with one client, in virtual time.
func bubble(t *testing.T, test func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		test(t, store, store.Connect(context.Background()))
	})
}

// fill puts n keys under a prefix, with values of 200 bytes.
func fill(store *fakeetcd.Store, prefix string, n int) {
	for i := range n {
		store.Put(fmt.Sprintf("%s%06d", prefix, i), fmt.Sprintf("%0200d", i))
	}
}
