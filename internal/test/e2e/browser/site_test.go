// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// site is an etcd and a rollcall serve with a page about it.
type site struct {
	t      *testing.T
	etcd   *etcdtest.Cluster
	client *clientv3.Client
	url    string
}

func newSite(t *testing.T, flags ...string) *site {
	t.Helper()
	need(t, chromium != nil, "chromium; to install it: apt-get install chromium")
	etcd := etcdtest.New(t, etcdtest.Options{})
	return &site{t, etcd, etcd.Client(t), serve(t, etcd, flags...)}
}

var consoleAt = regexp.MustCompile(`console at (\S+);`)

// serve runs rollcall serve until the test ends, and returns the address of its page.
func serve(t *testing.T, etcd *etcdtest.Cluster, flags ...string) string {
	t.Helper()
	cmd := exec.Command(command, append([]string{"serve", "--console", "127.0.0.1:0", "--xds", "127.0.0.1:0", "--admin", ""}, flags...)...)
	cmd.Env = append(os.Environ(), "ROLLCALL_ENDPOINTS="+strings.Join(etcd.Endpoints(), ","))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address, read := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if found := consoleAt.FindStringSubmatch(lines.Text()); found != nil {
				address <- found[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		_ = cmd.Wait()
	})
	select {
	case url := <-address:
		return url
	case <-read:
		t.Fatal("rollcall serve has ended")
	case <-time.After(time.Minute):
		t.Fatal("rollcall serve does not listen")
	}
	return ""
}

func (s *site) put(key, value string, opts ...clientv3.OpOption) {
	s.t.Helper()
	if _, err := s.client.Put(s.t.Context(), key, value, opts...); err != nil {
		s.t.Fatal(err)
	}
}

// lease returns a lease that nobody renews.
func (s *site) lease(seconds int64) clientv3.OpOption {
	s.t.Helper()
	lease, err := s.client.Grant(s.t.Context(), seconds)
	if err != nil {
		s.t.Fatal(err)
	}
	return clientv3.WithLease(lease.ID)
}

// putServices writes n services of an instance each, named svc-00000 and so on.
func (s *site) putServices(n int) {
	s.t.Helper()
	for from := 0; from < n; from += 100 {
		var ops []clientv3.Op
		for i := from; i < min(from+100, n); i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("svc-%05d/a", i), `{"Addr":"10.0.0.1:50051"}`))
		}
		if _, err := s.client.Txn(s.t.Context()).Then(ops...).Commit(); err != nil {
			s.t.Fatal(err)
		}
	}
}
