// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// tellTimeout bounds a message to systemd: a few that nobody reads fill the socket.
const tellTimeout = time.Second

// notifier tells systemd what the service does, as sd_notify(3) has it. The nil notifier of a
// process that systemd does not manage tells nobody.
type notifier struct {
	conn     *net.UnixConn
	watchdog time.Duration // how often systemd wants to hear that the service lives; 0: never
}

// newNotifier returns a notifier for the process's environment, nil without a NOTIFY_SOCKET.
func newNotifier(getenv func(string) (string, bool)) (*notifier, error) {
	path, _ := getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	if rest, abstract := strings.CutPrefix(path, "@"); abstract {
		path = "\x00" + rest
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	n := &notifier{conn: conn}
	usec, _ := getenv("WATCHDOG_USEC")
	pid, _ := getenv("WATCHDOG_PID")
	if us, err := strconv.ParseInt(usec, 10, 64); err == nil && us > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(us) * time.Microsecond
	}
	return n, nil
}

// tell sends assignments, such as READY=1. If systemd does not listen, the agent goes on.
func (n *notifier) tell(assignments ...string) {
	if n != nil {
		_ = n.conn.SetWriteDeadline(time.Now().Add(tellTimeout))
		_, _ = n.conn.Write([]byte(strings.Join(assignments, "\n")))
	}
}

// reloading tells that a reload has begun; READY=1 tells that it has ended.
func (n *notifier) reloading() {
	n.tell("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonic().Microseconds(), 10))
}

// status tells what people see in systemctl status.
func (n *notifier) status(text string) {
	n.tell("STATUS=" + strings.ReplaceAll(text, "\n", " "))
}

// beats returns when to tell that the service lives, at half of what systemd waits for; a nil
// channel without a watchdog.
func (n *notifier) beats() (beats <-chan time.Time, stop func()) {
	if n == nil || n.watchdog < 2 {
		return nil, func() {}
	}
	t := time.NewTicker(n.watchdog / 2)
	return t.C, t.Stop
}

func (n *notifier) close() {
	if n != nil {
		_ = n.conn.Close()
	}
}
