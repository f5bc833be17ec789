// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// maxSocketPath is what a path may have so that the longer one on which the socket is made fits into
// the 107 bytes that Linux allows.
const maxSocketPath = 80

// ErrRunning is what a second agent on a socket gets.
var ErrRunning = errors.New("another agent runs")

// ErrNotRunning is what Ask returns if nothing answers on a socket.
var ErrNotRunning = errors.New("no agent runs")

// socket is where an agent tells its status, as JSON by HTTP.
type socket struct {
	path string
	lock *os.File
	lis  net.Listener
	srv  http.Server
	done chan struct{}
}

// openSocket makes a unix socket that only this user may open; who asks there waits until serve. What
// a dead agent left is replaced; while another one runs, it is refused.
func openSocket(path string) (*socket, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket %s: a path of %d bytes is too long; the most is %d", path, len(path), maxSocketPath)
	}
	if err := makePrivate(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	lis, err := listen(path)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return &socket{path: path, lock: lock, lis: lis, done: make(chan struct{})}, nil
}

// serve begins to answer.
func (s *socket) serve(status func() Status) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status())
	})
	s.srv = http.Server{Handler: mux, ReadTimeout: time.Second, WriteTimeout: 5 * time.Second}
	go func() {
		defer close(s.done)
		_ = s.srv.Serve(s.lis) // ends with close
	}()
}

// makePrivate makes a directory, unless it is there. One that others may use is refused: they could put
// a socket of their own in place of the agent's.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil || isPrivate(info) {
		return err
	}
	return fmt.Errorf("%s belongs to another user or is open to others (mode %#o); name a path in a directory that is yours alone (0700), "+
		"or that is not there yet", dir, info.Mode().Perm())
}

// listen makes a socket where nobody else can reach it, and renames it into place.
func listen(path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

func (s *socket) close() {
	_ = os.Remove(s.path)
	_ = s.srv.Close()
	<-s.done
	_ = s.lock.Close()
}

// Ask asks the agent on a socket for its status.
func Ask(ctx context.Context, path string) (*Status, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%s belongs to another user: %w", path, os.ErrPermission)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("the agent at %s does not answer: %w", path, ctx.Err())
	case err != nil:
		return nil, fmt.Errorf("%w at %s: start it, or name its socket by --socket", ErrNotRunning, path)
	}
	defer resp.Body.Close()
	var status Status
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return nil, fmt.Errorf("the agent at %s: %w", path, err)
	}
	return &status, nil
}
