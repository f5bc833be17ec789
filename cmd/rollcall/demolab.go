// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// child is a process of the demo: rollcall with other arguments.
type child struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.Closer
	stderr  bytes.Buffer
	started time.Time     // when it reported that it was ready
	done    chan struct{} // closed when it has ended
}

// spawn starts rollcall with args and waits for its first line.
func spawn(ctx context.Context, name string, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{name: name, cmd: exec.Command(self, args...), done: make(chan struct{})}
	c.cmd.Stderr = &c.stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	first := make(chan string, 1)
	go func() {
		defer close(c.done)
		lines := bufio.NewReader(stdout)
		line, _ := lines.ReadString('\n')
		first <- line
		_, _ = io.Copy(io.Discard, lines)
		_ = c.cmd.Wait()
	}()
	select {
	case line := <-first:
		if line == "" {
			<-c.done
			return nil, fmt.Errorf("%s ended at once: %s", name, oneLine(c.stderr.String()))
		}
		c.started = time.Now()
		if nanos, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64); err == nil {
			c.started = time.Unix(0, nanos)
		}
		return c, nil
	case <-time.After(20 * time.Second):
		c.kill()
		return nil, fmt.Errorf("%s did not start within 20s", name)
	case <-ctx.Done():
		c.kill()
		return nil, context.Cause(ctx)
	}
}

// kill kills the process, as kill -9 does, and waits for its end.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// stop asks the process to end, as an operator would, and waits for its end.
func (c *child) stop() error {
	if c.cmd.Process.Signal(syscall.SIGTERM) != nil {
		_ = c.stdin.Close() // on systems without signals, the end of stdin stops it
	}
	select {
	case <-c.done:
		return nil
	case <-time.After(20 * time.Second):
		c.kill()
		return fmt.Errorf("%s did not stop within 20s", c.name)
	}
}

// lab runs the processes of the demo: an etcd and servers.
type lab struct {
	dir      string
	endpoint string
	etcd     *child
	servers  []*child
}

func newLab() (*lab, error) {
	dir, err := os.MkdirTemp("", "rollcall-demo-")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	return &lab{dir: dir, endpoint: net.JoinHostPort("127.0.0.1", port)}, nil
}

func freePort() (string, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer lis.Close()
	_, port, err := net.SplitHostPort(lis.Addr().String())
	return port, err
}

func (l *lab) startEtcd(ctx context.Context) (err error) {
	l.etcd, err = spawn(ctx, "etcd", "dev", "--data-dir", l.dir, "--listen", l.endpoint, "--until-eof")
	return err
}

func (l *lab) startServer(ctx context.Context, name string, n naming) (*child, error) {
	c, err := spawn(ctx, name, "demo-server", "--name", name, "--naming", n.name, "--ttl", demoTTL.String(), "--endpoints", l.endpoint)
	if err == nil {
		l.servers = append(l.servers, c)
	}
	return c, err
}

// close kills every process and removes the data.
func (l *lab) close() error {
	for _, c := range l.servers {
		c.kill()
	}
	if l.etcd != nil {
		l.etcd.kill()
	}
	return errors.Join(os.RemoveAll(l.dir))
}
