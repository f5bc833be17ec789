// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"context"
	"fmt"
	"testing"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// snapshotsOf returns a snapshot of n instances, and the next one, of one more.
func snapshotsOf(tb testing.TB, n int) (first, next *rollcall.Snapshot) {
	tb.Helper()
	return snapshotsWith(tb, n, func(i int) string { return fmt.Sprintf(`{"weight":%d,"zone":"eu-1"}`, 1+i%10) })
}

func snapshotsWith(tb testing.TB, n int, metadata func(i int) string) (first, next *rollcall.Snapshot) {
	tb.Helper()
	store := fakeetcd.New()
	defer store.Close()
	conn := store.Connect(context.Background())
	defer conn.Close()
	put := func(i int) {
		addr := fmt.Sprintf("10.0.%d.%d:50051", i>>8, i&255)
		store.Put("svc/"+addr, fmt.Sprintf(`{"Addr":%q,"Metadata":%s}`, addr, metadata(i)))
	}
	for i := range n {
		put(i)
	}
	d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	defer d.Close()
	sub, err := d.Subscribe("svc")
	if err != nil {
		tb.Fatal(err)
	}
	defer sub.Close()
	if first, err = sub.Next(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	put(n)
	for next == nil || next.Len() == n { // it may be stale for a moment before
		if next, err = sub.Next(tb.Context()); err != nil {
			tb.Fatal(err)
		}
	}
	return first, next
}
