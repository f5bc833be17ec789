// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

var update = flag.Bool("update", false, "write the goldens of histories")

// TestHistories plays histories of an etcd and its client in virtual time, and compares what a
// subscriber sees with readable goldens. A line that starts with "> " is a command, or several
// joined by "and"; the snapshots seen until everything is quiet follow. After a "converge", whose
// intermediate snapshots depend on chance, only the last one follows.
func TestHistories(t *testing.T) {
	files, err := filepath.Glob("testdata/histories/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no histories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			synctest.Test(t, func(t *testing.T) { got = play(t, string(data)) })
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(data) {
				t.Errorf("got:\n%s\nwant:\n%s", got, data)
			}
		})
	}
}

// play runs the commands of a history and returns it with what was seen.
func play(t *testing.T, script string) string {
	p := newPlayer(t)
	defer p.close()
	var out strings.Builder
	for line := range strings.Lines(script) {
		switch {
		case strings.HasPrefix(line, "#"):
			out.WriteString(line)
		case strings.HasPrefix(line, "> "):
			out.WriteString(line)
			if strings.HasPrefix(line, "> put") || strings.HasPrefix(line, "> del") {
				time.Sleep(10 * time.Millisecond) // or it is one burst with the line before
			}
			if answer := p.doAll(strings.Fields(line[2:])); answer != "" {
				fmt.Fprintf(&out, "  = %s\n", answer)
			}
			synctest.Wait()
			seen := p.seen()
			if len(seen) > 0 && strings.Contains(line, "converge") {
				seen = seen[len(seen)-1:]
			}
			for _, line := range seen {
				fmt.Fprintf(&out, "  %s\n", line)
			}
		}
	}
	return out.String()
}

// player has one store, one client of it and one subscriber to "svc".
type player struct {
	t     *testing.T
	store *fakeetcd.Store
	conn  *fakeetcd.Conn
	saved *fakeetcd.Snapshot
	dir   *rollcall.Directory
	sub   *rollcall.Subscription
	stop  context.CancelFunc
	done  chan struct{}
	lines chan string
}

func newPlayer(t *testing.T) *player {
	p := &player{t: t, store: fakeetcd.New(), lines: make(chan string, 10_000), done: make(chan struct{}), stop: func() {}}
	p.conn = p.store.Connect(context.Background())
	var err error
	if p.dir, err = rollcall.NewDirectory(p.conn.Client, rollcall.DirectoryOptions{}); err != nil {
		t.Fatal(err)
	}
	close(p.done)
	return p
}

func (p *player) close() {
	p.stop()
	<-p.done
	p.dir.Close()
	p.conn.Close()
	p.store.Close()
}

func (p *player) seen() (all []string) {
	for {
		select {
		case line := <-p.lines:
			all = append(all, line)
		default:
			return all
		}
	}
}

// record writes down every snapshot, and every reason why there is none yet.
func (p *player) record(ctx context.Context) {
	defer close(p.done)
	var last *rollcall.Snapshot
	for reported := ""; ; {
		select {
		case <-p.sub.Changed():
		case <-ctx.Done():
			return
		}
		if snap := p.sub.Latest(); snap != nil && snap != last {
			last = snap
			p.lines <- describe(snap)
		} else if err := p.sub.Err(); err != nil && err.Error() != reported {
			reported = err.Error()
			p.lines <- "none: " + reported
		}
	}
}

func describe(snap *rollcall.Snapshot) string {
	var ids []string
	for inst := range snap.All() {
		ids = append(ids, inst.ID())
	}
	line := fmt.Sprintf("revision %d: %v", snap.Revision(), ids)
	for _, rej := range snap.Invalid() {
		line += " invalid " + rej.Key
	}
	if snap.Epoch() > 1 {
		line += fmt.Sprintf(" epoch %d", snap.Epoch())
	}
	if stale := snap.Staleness(); stale != nil {
		line += " stale: " + stale.Cause.Error()
	}
	return line
}

// do runs one command and returns what it has to say.
func (p *player) do(words []string) string {
	switch command, args := words[0], words[1:]; command {
	case "subscribe":
		var err error
		if p.sub, err = p.dir.Subscribe("svc"); err != nil {
			p.t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		p.stop, p.done = stop, make(chan struct{})
		go p.record(ctx)
	case "unsubscribe":
		began := time.Now()
		p.stop()
		<-p.done
		p.sub.Close()
		return fmt.Sprintf("closed after %v", time.Since(began))
	case "put":
		for _, id := range args {
			p.store.Put("svc/"+id, `{"Addr":"`+id+`:1"}`)
		}
	case "put-bad":
		p.store.Put("svc/"+args[0], "not JSON")
	case "put-many":
		n, _ := strconv.Atoi(args[0])
		for i := range n {
			p.store.Put("other/"+strconv.Itoa(i), "x")
		}
	case "del":
		p.store.Delete("svc/" + args[0])
	case "compact":
		if err := p.store.Compact(p.store.Revision()); err != nil {
			p.t.Fatal(err)
		}
	case "refuse-lists":
		p.conn.Fail(fakeetcd.Get, rpctypes.ErrPermissionDenied)
	case "allow-lists":
		p.conn.Fail(fakeetcd.Get, nil)
	case "fail-watches":
		p.conn.CancelWatches(errors.New("etcdserver: mvcc: some fault"))
	case "wait", "converge":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			p.t.Fatal(err)
		}
		time.Sleep(d)
	case "lists":
		return fmt.Sprint(p.dir.Stats().Lists)
	case "watches":
		return fmt.Sprint(p.store.Watches())
	default:
		p.fault(command, args)
	}
	return ""
}

// doAll runs commands separated by "and" and returns what the last one has to say.
func (p *player) doAll(words []string) (answer string) {
	for i, word := range words {
		if word == "on-watch" {
			p.onWatch(words[i+1:])
			return ""
		}
	}
	for _, command := range strings.Split(strings.Join(words, " "), " and ") {
		answer = p.do(strings.Fields(command))
	}
	return answer
}

// onWatch does the rest once, right before the next watch is opened.
func (p *player) onWatch(rest []string) {
	p.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
		if call.Method == fakeetcd.Watch {
			p.conn.SetHook(nil)
			p.doAll(rest)
		}
		return nil
	})
}

// fault does to the connection or the store what goes wrong.
func (p *player) fault(name string, args []string) {
	faults := map[string]func(){
		"cut":           p.conn.Cut,
		"mend":          p.conn.Mend,
		"freeze":        p.conn.Freeze,
		"thaw":          p.conn.Thaw,
		"lose-leader":   p.conn.LoseLeader,
		"find-leader":   p.conn.FindLeader,
		"break-streams": p.conn.BreakStreams,
		"close-watches": p.conn.CloseWatches,
		"wipe":          p.store.Wipe,
		"save":          func() { p.saved = p.store.Snapshot() },
		"restore":       func() { p.store.Restore(p.saved, 0) },
		"refresh":       p.sub.Refresh,
		"lag":           func() { n, _ := strconv.ParseInt(args[0], 10, 64); p.conn.Lag(n) },
	}
	fault := faults[name]
	if fault == nil {
		p.t.Fatalf("unknown command %q", name)
	}
	fault()
}
