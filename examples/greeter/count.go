// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package greeter

import (
	"context"
	"fmt"
	"log"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
)

// Count makes calls, after one that waits for a server, and prints who answered how often. It returns
// how many failed.
func Count(conn grpc.ClientConnInterface, calls int, every time.Duration) (failed int) {
	call := func(opts ...grpc.CallOption) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return Greet(ctx, conn, opts...)
	}
	if _, err := call(grpc.WaitForReady(true)); err != nil {
		log.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // the first server is connected; let the others be, too
	answered := make(map[string]int)
	for range calls {
		name, err := call()
		if err != nil {
			failed++
			log.Print(err)
		} else {
			answered[name]++
		}
		time.Sleep(every)
	}
	for _, name := range slices.Sorted(maps.Keys(answered)) {
		fmt.Printf("%s: %d calls\n", name, answered[name])
	}
	fmt.Printf("%d failed\n", failed)
	return failed
}
