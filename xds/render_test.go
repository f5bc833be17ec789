// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// What a change of one endpoint costs before it is sent.
func BenchmarkRender(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			etcd := fakeetcd.New()
			defer etcd.Close()
			for i := range n {
				addr := fmt.Sprintf("10.0.%d.%d:50051", i>>8, i&255)
				etcd.Put("svc/"+addr, fmt.Sprintf(`{"Addr":%q,"Metadata":{"weight":%d,"zone":"eu-%d"}}`, addr, 1+i%10, i%2))
			}
			conn := etcd.Connect(context.Background())
			defer conn.Close()
			directory, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer directory.Close()
			snap, err := directory.List(b.Context(), "svc")
			if err != nil {
				b.Fatal(err)
			}
			config := mapServiceConfig(nil)
			known := describe(snap, nil)
			b.ReportAllocs()
			for b.Loop() {
				delete(known, snap.Instance("svc/10.0.0.0:50051")) // the one that has changed
				known = describe(snap, known)
				hostNames(known)
				endpoints, left := endpointsOf(snap, known, rollcall.Selector{}, nil, nil)
				newResource(assignmentOf("svc", "svc", endpoints, left, audience{}, config, 2000))
			}
		})
	}
}
