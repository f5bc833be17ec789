// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"cmp"
	"net/http"
	"strconv"
	"time"
)

const (
	// writeTimeout is how long a reader may take for what it is sent, before it is dropped.
	writeTimeout = 10 * time.Second
	// heartbeat is how often a stream is written to, which finds readers that are gone, and its
	// reader asked for again, which ends it when a token was replaced.
	heartbeat = 15 * time.Second
)

// stream sends a view's changes until the reader leaves, does not read, or is logged out. A
// reader that is slow gets what has changed since it was last written to.
func (c *Console) stream(w http.ResponseWriter, r *http.Request, l *live, ended <-chan struct{}) {
	if c.streams.Add(1) > int64(c.opts.MaxStreams) {
		c.streams.Add(-1)
		w.Header().Set("Retry-After", "30")
		http.Error(w, "too many pages are open; close some", http.StatusServiceUnavailable)
		return
	}
	defer c.streams.Add(-1)
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{}) // the request is read; at its deadline HTTP/1 would end it
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep the events back
	send := func(data []byte) bool {
		_ = out.SetWriteDeadline(time.Now().Add(c.writeTimeout))
		_, err := w.Write(data)
		err = cmp.Or(err, out.Flush())
		_ = out.SetWriteDeadline(time.Time{}) // HTTP/2 would end a quiet stream at its deadline
		return err == nil
	}
	if !send([]byte("retry: 2000\n\n")) {
		return
	}
	loggedOut := func() { send([]byte("event: end\ndata: logged out\n\n")) }
	quiet := time.NewTicker(c.heartbeat)
	defer quiet.Stop()
	version := knownVersion(r)
	for {
		events, next, changed := l.since(version)
		if len(events) > 0 && !send(events) {
			return
		}
		version = next
		select {
		case <-changed:
		case <-quiet.C:
			if c.known(r) == nil {
				loggedOut()
				return
			}
			if !send([]byte(":\n\n")) {
				return
			}
		case <-ended:
			loggedOut()
			return
		case <-c.closing:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// knownVersion returns the version that a reader has: that of its page or, after a stream that
// broke, that of the last event. It is 0 for one that has none.
func knownVersion(r *http.Request) uint64 {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("since")
	}
	version, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return version
}
