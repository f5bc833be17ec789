// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package random

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sort"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// realFaults are those of realWorld; N is a client. A member that is down or paused comes
// back with the next fault of a member's, so that there is always a majority to write to.
var realFaults = []string{"cut N", "cut N", "freeze N", "half N", "half N", "mend N", "mend N", "delay N", "deny N", "disk", "resubscribe N",
	"kill", "stop", "pause", "start", "leader", "compact", "expire"}

// realWorld is three real members that ask who a client is, and two links for each client,
// a user of its own, to two of them. Tokens, which one member alone knows, end soon.
type realWorld struct {
	t       *testing.T
	etcd    *etcdtest.Cluster
	auth    *etcdtest.Auth
	links   [][2]*etcdtest.Link
	clients []*clientv3.Client
	root    *clientv3.Client
	denied  [clients]bool
	cache   string           // directory of the first client
	down    *etcdtest.Member // killed, stopped or paused
	paused  bool
	next    int // the member that is next in turn
}

func newRealWorld(t *testing.T) *realWorld {
	flags := append(etcdtest.SimpleTokens(5*time.Second), "--bcrypt-cost=4")
	w := &realWorld{t: t, etcd: etcdtest.New(t, etcdtest.Options{Members: 3, Flags: flags}), cache: t.TempDir()}
	w.auth = w.etcd.EnableAuth(t)
	w.root = w.auth.Client(t, "root")
	for i := range clients {
		w.auth.AddUser(user(i), "secret", etcdtest.ReadWrite("s"), etcdtest.Read(rollcall.ConfigPrefix))
		links := [2]*etcdtest.Link{etcdtest.NewLink(t, w.etcd.Member(i%3).Addr()), etcdtest.NewLink(t, w.etcd.Member((i+1)%3).Addr())}
		cfg := rollcall.ClientConfig(links[0].Addr(), links[1].Addr())
		w.auth.As(user(i))(&cfg)
		client, err := rollcall.NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		w.links, w.clients = append(w.links, links), append(w.clients, client)
	}
	return w
}

func user(i int) string { return fmt.Sprint("user-", i) }

func (w *realWorld) cacheDir(i int) string {
	if i > 0 {
		return ""
	}
	return w.cache
}

func (w *realWorld) client(i int) *clientv3.Client { return w.clients[i] }
func (w *realWorld) direct() *clientv3.Client      { return w.root }

func (w *realWorld) fault(op string, i int, _ func(lose func())) {
	switch op {
	case "cut":
		for _, link := range w.links[i] {
			link.Cut()
		}
	case "freeze":
		for _, link := range w.links[i] {
			link.Freeze()
		}
	case "half": // of what is under way the client gives up a part
		w.links[i][0].Freeze()
	case "delay":
		for _, link := range w.links[i] {
			link.Delay(200 * time.Millisecond)
		}
	case "mend":
		w.mend(i)
	case "deny":
		if !w.denied[i] {
			w.denied[i] = true
			w.allow(i, false)
		}
	case "disk":
		w.hangDisk()
	case "kill", "stop", "pause", "leader":
		w.start()
		w.down = w.etcd.Member(w.next % 3)
		w.next++
		switch op {
		case "leader":
			w.down = w.etcd.Leader()
			w.down.Kill()
		case "kill":
			w.down.Kill()
		case "stop":
			w.down.Stop()
		case "pause":
			w.down.Pause()
			w.paused = true
		}
	case "start":
		w.start()
	case "compact":
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if resp, err := w.root.Get(ctx, "revision"); err == nil {
			_, _ = w.root.Compact(ctx, resp.Header.Revision) // compacted already is as good
		}
	case "expire":
		w.expire()
	}
}

// expire ends one lease, as its TTL would.
func (w *realWorld) expire() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if resp, err := w.root.Leases(ctx); err == nil && len(resp.Leases) > 0 {
		_, _ = w.root.Revoke(ctx, resp.Leases[w.next%len(resp.Leases)].ID)
		w.next++
	}
}

func (w *realWorld) start() {
	switch {
	case w.down == nil:
		return
	case w.paused:
		w.down.Resume()
	default:
		w.down.Start()
	}
	w.down, w.paused = nil, false
	w.etcd.WaitReady()
}

func (w *realWorld) mend(i int) {
	for _, link := range w.links[i] {
		link.Mend()
	}
	if w.denied[i] {
		w.denied[i] = false
		w.allow(i, true)
	}
}

// allow gives a client the right to the services, or takes it, whatever elections say.
func (w *realWorld) allow(i int, may bool) {
	end := clientv3.GetPrefixRangeEnd("s")
	_, err := patiently(func(ctx context.Context) (_ struct{}, err error) {
		if may {
			_, err = w.root.RoleGrantPermission(ctx, user(i), "s", end, clientv3.PermissionType(clientv3.PermReadWrite))
			return
		}
		_, err = w.root.RoleRevokePermission(ctx, user(i), "s", end)
		if errors.Is(err, rpctypes.ErrPermissionNotGranted) { // a try that failed has done it
			err = nil
		}
		return
	})
	if err != nil {
		w.t.Fatalf("rights of client %d: %v", i, err)
	}
}

func (w *realWorld) heal() {
	w.start()
	for i := range clients {
		w.mend(i)
	}
	w.thawDisk()
}

// cacheFile returns the file of a service, whose name is the cache's to choose.
func (w *realWorld) cacheFile(s int) string {
	files, _ := filepath.Glob(filepath.Join(w.cache, serviceName(s)+"*.json"))
	if len(files) == 0 {
		return filepath.Join(w.cache, serviceName(s)+".json")
	}
	return files[0]
}

// patience is three times the promise of 10 s: the machine may be busy.
func (w *realWorld) patience() patience {
	return patience{bound: 30 * time.Second, poll: 100 * time.Millisecond}
}

// TestSoak plays histories one after the other on one etcd, with everything that follows
// it going on through all of them.
func TestSoak(t *testing.T) {
	most := *soak
	if most == 0 {
		most = 20 * time.Second
	}
	w := newRealWorld(t)
	d, err := newDriver(w)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	histories := generate(realFaults, 25)
	first := firstSeed()
	t.Logf("-seed %d", first)
	faults := make(map[string]int)
	began := time.Now()
	report := func() usage { // without registrations, of which there are now more, now fewer
		t.Helper()
		if err := d.leaveAll(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		u := used()
		t.Logf("%v: %d checks, the slowest took %v; %d writes; faults %s; %s", time.Since(began).Round(time.Second), d.checks,
			d.slowest.Round(time.Millisecond), d.writes, counts(faults), u)
		return u
	}
	var early usage
	for played, said := 0, time.Duration(0); time.Since(began) < most; played++ {
		steps := brisk(histories.Example(first + played))
		for _, s := range steps {
			faults[strings.Fields(string(s))[0]]++
		}
		if err := d.play(steps); err != nil {
			t.Fatalf("%v\nin:\n%s", err, text(steps))
		}
		if minute := time.Since(began).Truncate(time.Minute); minute > said {
			said = minute
			if u := report(); early.goroutines == 0 && minute >= 2*time.Minute {
				early = u
			}
		}
	}
	late := report()
	if early.goroutines == 0 {
		return // too short to tell
	}
	if late.goroutines > early.goroutines+20 || late.heap > early.heap*3/2+4<<20 {
		var what strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&what, 1)
		t.Errorf("at the end %s, at minute two %s\n%s", late, early, what.String())
	}
}

// brisk has no step wait for more than a few seconds, which is as good where time is real.
func brisk(steps []step) []step {
	for i, s := range steps {
		switch s {
		case "wait 15s", "wait 1m", "wait 10m":
			steps[i] = "wait 3s"
		}
	}
	return steps
}

// usage is what the process uses.
type usage struct {
	heap       uint64
	goroutines int
}

func (u usage) String() string {
	return fmt.Sprintf("heap %.1f MiB, %d goroutines", float64(u.heap)/(1<<20), u.goroutines)
}

func used() usage {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{m.HeapAlloc, runtime.NumGoroutine()}
}

func counts(of map[string]int) string {
	var all []string
	for op, n := range of {
		all = append(all, fmt.Sprintf("%s %d", op, n))
	}
	sort.Strings(all)
	return strings.Join(all, ", ")
}
