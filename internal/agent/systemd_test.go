// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// A systemd that does not read its socket does not stop the agent.
func TestNotifierGoesOn(t *testing.T) {
	dir, err := os.MkdirTemp("", "rc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	env := map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())}
	getenv := func(name string) (string, bool) { value, ok := env[name]; return value, ok }
	n, err := newNotifier(getenv)
	if err != nil || n.watchdog != 30*time.Second {
		t.Fatalf("got %+v, %v, want a watchdog of 30s", n, err)
	}
	defer n.close()
	began, full := time.Now(), 0
	for full < 2 {
		at := time.Now()
		if n.tell("WATCHDOG=1"); time.Since(at) > tellTimeout/2 {
			full++
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal("the socket is never full")
		}
	}
	env["WATCHDOG_PID"] = "1"
	if other, err := newNotifier(getenv); err != nil || other.watchdog != 0 {
		t.Errorf("got %+v, %v, want no watchdog, which is another process's", other, err)
	}
	delete(env, "NOTIFY_SOCKET")
	if none, err := newNotifier(getenv); err != nil || none != nil {
		t.Errorf("got %+v, %v, want none", none, err)
	}
	var none *notifier
	none.tell("READY=1")
	none.close()
}
