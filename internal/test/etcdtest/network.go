// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

const (
	// netSlots is how many networks can exist at a time; each has its own /24.
	netSlots = 200
	// netMembers is how many members, with a /30 each, fit into a network.
	netMembers = 60
	// netLocks is not in a user's cache, as other locks are, since networks belong to the machine.
	netLocks = "/run/rollcall-netns"
	netnsDir = "/run/netns"
)

// network is a network namespace for each member, and one more with the bridge that joins
// them. Members have two interfaces: "peers", towards the bridge, and "clients", whose
// other end is in the namespace of the test. A network has a slot, a number that a locked file
// reserves: a process that gets the lock may remove what is left of an earlier network.
type network struct {
	slot int
}

// newNetwork creates the network, or skips the test if that is impossible.
func newNetwork(tb testing.TB, members int) *network {
	tb.Helper()
	if err := canNetwork(); err != nil {
		skipNetwork(tb, err)
	}
	if members > netMembers {
		tb.Fatalf("etcdtest: %d members, at most %d are partitionable", members, netMembers)
	}
	n, unlock, err := reserveNetwork()
	if err != nil {
		tb.Fatalf("etcdtest: network: %v", err)
	}
	tb.Cleanup(func() {
		defer unlock()
		if err := n.remove(); err != nil {
			tb.Errorf("etcdtest: remove network: %v", err)
		}
	})
	if err := n.build(members); forbidden(err) {
		skipNetwork(tb, err)
	} else if err != nil {
		tb.Fatalf("etcdtest: network: %v", err)
	}
	return n
}

func canNetwork() error {
	if runtime.GOOS != "linux" {
		return errors.New("network namespaces are Linux's, this is " + runtime.GOOS)
	}
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("network namespaces take root, this is uid %d", uid)
	}
	_, err := exec.LookPath("ip")
	return err
}

// forbidden reports whether the kernel or the container does not allow it.
func forbidden(err error) bool {
	if err == nil {
		return false
	}
	for _, text := range []string{"Operation not permitted", "Permission denied", "not supported", "Unknown device type", "Read-only file system"} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// skipNetwork skips the test. In CI it also writes to stderr, since logs of skipped tests are not
// shown.
func skipNetwork(tb testing.TB, why error) {
	tb.Helper()
	if os.Getenv("CI") != "" {
		fmt.Fprintf(os.Stderr, "\n::warning::%s SKIPPED: no network namespaces: %v\n", tb.Name(), why)
	}
	tb.Skipf("etcdtest: no network namespaces: %v", why)
}

// reserveNetwork returns a free slot, and removes what dead processes have left in any slot: the lock
// of a slot ends with its process.
func reserveNetwork() (n *network, unlock func(), err error) {
	if err := os.MkdirAll(netLocks, 0o755); err != nil {
		return nil, nil, err
	}
	for slot := range netSlots {
		s := &network{slot}
		if n != nil && len(s.namespaces()) == 0 {
			continue
		}
		release, err := lockFile(filepath.Join(netLocks, strconv.Itoa(slot)), false)
		if err != nil {
			continue // used by another test
		}
		if err := s.remove(); err != nil || n != nil {
			release()
			continue
		}
		n, unlock = s, release
	}
	if n == nil {
		return nil, nil, fmt.Errorf("all %d in %s are taken", netSlots, netLocks)
	}
	return n, unlock, nil
}

func (n *network) namespace(what string) string { return fmt.Sprintf("rollcall-%d-%s", n.slot, what) }
func (n *network) member(i int) string          { return n.namespace("m" + strconv.Itoa(i)) }
func (n *network) bridge() string               { return n.namespace("bridge") }

// outside is the end of member i's client link in the namespace of the test.
func (n *network) outside(i int) string { return fmt.Sprintf("rollcall%dm%d", n.slot, i) }

// The addresses are from the range for benchmarks of networks (RFC 2544). Those of peers are the same
// in every network, since they are visible only there.

func (n *network) clientAddr(i, end int) string { return fmt.Sprintf("198.18.%d.%d", n.slot, 4*i+end) }
func (n *network) clientHost(i int) string      { return n.clientAddr(i, 2) }
func (n *network) peerHost(i int) string        { return fmt.Sprintf("198.19.0.%d", i+1) }

func (n *network) wrap(i int, argv []string) []string {
	return append([]string{"ip", "netns", "exec", n.member(i)}, argv...)
}

func (n *network) build(members int) error {
	cmds := []string{
		"netns add " + n.bridge(),
		fmt.Sprintf("-n %s link add bridge type bridge", n.bridge()),
		fmt.Sprintf("-n %s link set bridge up", n.bridge()),
	}
	for i := range members {
		m, b, out := n.member(i), n.bridge(), n.outside(i)
		cmds = append(cmds,
			"netns add "+m,
			fmt.Sprintf("-n %s link set lo up", m),
			fmt.Sprintf("link add %s type veth peer name clients netns %s", out, m),
			fmt.Sprintf("addr add %s/30 dev %s", n.clientAddr(i, 1), out),
			fmt.Sprintf("link set %s up", out),
			fmt.Sprintf("-n %s addr add %s/30 dev clients", m, n.clientHost(i)),
			fmt.Sprintf("-n %s link set clients up", m),
			fmt.Sprintf("-n %s link add m%d type veth peer name peers netns %s", b, i, m),
			fmt.Sprintf("-n %s link set m%d master bridge up", b, i),
			fmt.Sprintf("-n %s addr add %s/24 dev peers", m, n.peerHost(i)),
			fmt.Sprintf("-n %s link set peers up", m),
		)
	}
	for _, cmd := range cmds {
		if err := ip(cmd); err != nil {
			return err
		}
	}
	return nil
}

// cut removes member i's link from the bridge, or adds it again. The link stays up, so that neither
// side is notified.
func (n *network) cut(i int, cut bool) error {
	to := "master bridge"
	if cut {
		to = "nomaster"
	}
	return ip(fmt.Sprintf("-n %s link set m%d %s", n.bridge(), i, to))
}

// remove removes whatever exists. Interfaces go first, since a namespace has them for a while after
// its name is gone.
func (n *network) remove() error {
	ifaces, err := net.Interfaces()
	for _, iface := range ifaces {
		if strings.HasPrefix(iface.Name, fmt.Sprintf("rollcall%dm", n.slot)) {
			err = errors.Join(err, ip("link del "+iface.Name))
		}
	}
	for _, name := range n.namespaces() {
		err = errors.Join(err, ip("netns del "+name))
	}
	return err
}

func (n *network) namespaces() []string {
	paths, _ := filepath.Glob(filepath.Join(netnsDir, n.namespace("*"))) // errs on a bad pattern only
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

func ip(cmd string) error {
	out, err := exec.Command("ip", strings.Fields(cmd)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", cmd, err, strings.TrimSpace(string(out)))
	}
	return nil
}
