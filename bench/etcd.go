// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// etcd is a member in its own process, with default limits and its data on disk.
type etcd struct {
	address, peer string
	dir           string
	cmd           *exec.Cmd
	in            io.Closer // closed to kill the member
}

// binaryEnv names the built etcd to the processes of a run.
const binaryEnv = "BENCH_ETCD"

// buildEtcd builds the etcd that ../tools/go.mod pins, in a directory for all data of a run.
func buildEtcd() (remove func(), err error) {
	dir, err := os.MkdirTemp("", "rollcall-bench")
	if err != nil {
		return nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	binary := filepath.Join(dir, "etcd")
	build := exec.Command("go", "build", "-C", "../tools", "-o", binary, "go.etcd.io/etcd/server/v3")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		remove()
		return nil, fmt.Errorf("build etcd (bench runs in its own directory): %w", err)
	}
	return remove, os.Setenv(binaryEnv, binary)
}

// startEtcd starts a member without data.
func startEtcd() (_ *etcd, err error) {
	e := new(etcd)
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	if e.dir, err = os.MkdirTemp(filepath.Dir(os.Getenv(binaryEnv)), "data"); err != nil {
		return nil, err
	}
	if e.address, e.peer, err = freeAddresses(); err != nil {
		return nil, err
	}
	if err := e.run(); err != nil {
		return nil, err
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.address}})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := c.Get(ctx, "ready"); err != nil {
		return nil, fmt.Errorf("etcd does not answer: %w", err)
	}
	return e, nil
}

// run starts the member on what data it has. A process between this one and the member makes
// it end with this one.
func (e *etcd) run() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	e.cmd = exec.Command(self, "child", "etcd", "--data-dir", filepath.Join(e.dir, "data"), "--log-level", "error",
		"--listen-client-urls", "http://"+e.address, "--advertise-client-urls", "http://"+e.address,
		"--listen-peer-urls", "http://"+e.peer, "--initial-advertise-peer-urls", "http://"+e.peer, "--initial-cluster", "default=http://"+e.peer)
	e.cmd.Stderr = os.Stderr
	if e.in, err = e.cmd.StdinPipe(); err != nil {
		return err
	}
	return e.cmd.Start()
}

// etcdChild is the process between: it runs etcd until its input ends.
func etcdChild(args []string) {
	cmd := exec.Command(os.Getenv(binaryEnv), args...)
	cmd.Stderr = os.Stderr
	check(cmd.Start())
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// kill ends the member as a crash would.
func (e *etcd) kill() {
	_ = e.in.Close()
	_ = e.cmd.Wait()
}

func (e *etcd) stop() {
	if e.cmd != nil && e.cmd.Process != nil {
		e.kill()
	}
	_ = os.RemoveAll(e.dir)
}

func freeAddresses() (a, b string, err error) {
	var both [2]string
	for i := range both {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer l.Close()
		both[i] = l.Addr().String()
	}
	return both[0], both[1], nil
}

// metrics sums the server's metrics of a name, by the value of a label ("": all).
func metrics(address, name, label string) (map[string]float64, error) {
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	all := make(map[string]float64)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		metric, labels, _ := strings.Cut(series, "{")
		if metric != name {
			continue
		}
		_, of, _ := strings.Cut(labels, label+`="`)
		of, _, _ = strings.Cut(of, `"`)
		if label == "" {
			of = ""
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", series, err)
		}
		all[of] += n
	}
	return all, lines.Err()
}

// watchers returns how many watches the server has, once those of clients that are gone have
// ended, too.
func watchers(address string) float64 {
	for before := -1.0; ; time.Sleep(100 * time.Millisecond) {
		now := must(metrics(address, "etcd_debugging_mvcc_watcher_total", ""))[""]
		if now == before {
			return now
		}
		before = now
	}
}
