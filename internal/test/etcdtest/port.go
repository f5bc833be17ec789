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

// Ports are below the range that Linux and macOS use for outgoing connections. A port in that range
// could be lost while its member is stopped: any connection may get it, and a client that dials it
// may even connect to itself.
const (
	firstPort = 15000
	lastPort  = 32000
)

// reservePort returns a port that no other test on this machine gets, in any process, until the test
// ends. It stays reserved while nothing listens on it.
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
			continue // used by another test
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
