// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Ports are taken from below the range that Linux and macOS give to outgoing
// connections. A port within it can be lost while its member is stopped: any connection
// may get it, and a client that dials it may even connect to itself.
const (
	firstPort = 15000
	lastPort  = 32000
)

// reservePort returns a port that no other test of this machine gets, in any process,
// until the test ends. It stays reserved while nothing listens on it.
func reservePort(tb testing.TB) int {
	tb.Helper()
	cache, err := cacheDir()
	if err == nil {
		cache = filepath.Join(cache, "ports")
		err = os.MkdirAll(cache, 0o755)
	}
	if err != nil {
		tb.Fatalf("etcdtest: %v", err)
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		unlock, err := lockFile(filepath.Join(cache, strconv.Itoa(port)), false)
		if err != nil {
			continue // another test has it
		}
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			unlock()
			continue
		}
		ln.Close()
		tb.Cleanup(unlock)
		return port
	}
	tb.Fatalf("etcdtest: no free port between %d and %d", firstPort, lastPort)
	return 0
}
