// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
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
	address string
	dir     string
	cmd     *exec.Cmd
}

// startEtcd builds the etcd that ../tools/go.mod pins, if necessary, and starts it.
func startEtcd() (*etcd, error) {
	dir, err := os.MkdirTemp("", "rollcall-bench")
	if err != nil {
		return nil, err
	}
	e := &etcd{dir: dir}
	binary := filepath.Join(dir, "etcd")
	build := exec.Command("go", "build", "-C", "../tools", "-o", binary, "go.etcd.io/etcd/server/v3")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		e.stop()
		return nil, fmt.Errorf("build etcd (bench runs in its own directory): %w", err)
	}
	client, peer, err := freeAddresses()
	if err != nil {
		e.stop()
		return nil, err
	}
	e.address = client
	e.cmd = exec.Command(binary, "--data-dir", filepath.Join(dir, "data"), "--log-level", "error",
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
	e.cmd.Stderr = os.Stderr
	if err := e.cmd.Start(); err != nil {
		e.stop()
		return nil, err
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{client}})
	if err != nil {
		e.stop()
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := c.Get(ctx, "ready"); err != nil {
		e.stop()
		return nil, fmt.Errorf("etcd does not answer: %w", err)
	}
	return e, nil
}

func (e *etcd) stop() {
	if e.cmd != nil && e.cmd.Process != nil {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait()
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

// watchers returns how many watches the server has.
func watchers(address string) float64 {
	all := must(metrics(address, "etcd_debugging_mvcc_watcher_total", ""))
	return all[""]
}
