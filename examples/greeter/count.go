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

// patience is how long a call, and the servers together, may take to answer.
const patience = 5 * time.Second

// Count makes calls, once some servers have each answered one, and prints who answered how often. It returns how
// many failed.
func Count(conn grpc.ClientConnInterface, servers, calls int, every time.Duration) (failed int) {
	call := func(opts ...grpc.CallOption) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return Greet(ctx, conn, opts...)
	}
	if err := await(call, servers); err != nil {
		log.Fatal(err)
	}
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

// await calls until so many servers have answered: then the client is connected to all of them.
func await(call func(...grpc.CallOption) (string, error), servers int) error {
	answered := make(map[string]bool)
	for until := time.Now().Add(patience); len(answered) < servers; time.Sleep(time.Millisecond) {
		name, err := call(grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		answered[name] = true
		if time.Now().After(until) && len(answered) < servers {
			return fmt.Errorf("of %d servers only these answer: %v", servers, slices.Sorted(maps.Keys(answered)))
		}
	}
	return nil
}
