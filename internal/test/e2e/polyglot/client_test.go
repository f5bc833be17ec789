// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package polyglot_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

// examples is where the clients are, and where their commands run.
const examples = "../../../../examples/polyglot"

// language is a client in examples.
type language struct {
	name    string
	command []string
	check   []string // a command that builds the client, or fails where something is missing
	install string   // what may be missing
}

var languages = []*language{
	{"Go", []string{"./go/client"}, []string{"go", "build", "-o", "go/client", "./go"}, "Go"},
	{"Node", []string{"node", "node/client.js"}, []string{"node", "-e", "require('./node/node_modules/@grpc/grpc-js-xds')"},
		"nodejs and npm, and run npm ci in examples/polyglot/node"},
	{"Python", []string{"/usr/bin/python3", "python/client.py"}, []string{"/usr/bin/python3", "-c", "import grpc"}, "python3-grpcio"},
	{"C++", []string{"./cpp/client"}, []string{"make", "-C", "cpp"}, "g++, make, libgrpc++-dev and libprotobuf-dev"},
	{"Ruby", []string{"/usr/bin/ruby", "ruby/client.rb"}, []string{"/usr/bin/ruby", "-e", "require 'grpc'"}, "ruby-grpc"},
}

// present returns the languages whose clients run here.
var present = sync.OnceValue(func() (found []*language) {
	missing := make([]error, len(languages))
	var wg sync.WaitGroup
	for i, l := range languages {
		wg.Go(func() {
			cmd := exec.Command(l.check[0], l.check[1:]...)
			cmd.Dir = examples
			if out, err := cmd.CombinedOutput(); err != nil {
				missing[i] = fmt.Errorf("install %s: %v\n%s", l.install, err, out)
			}
		})
	}
	wg.Wait()
	for i, l := range languages {
		if why[l] = missing[i]; missing[i] == nil {
			found = append(found, l)
		}
	}
	return found
})

// why has why a language is not present.
var why = make(map[*language]error)

// The other tests run the clients that there are; in CI these have to be all.
func TestLanguages(t *testing.T) {
	present()
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			switch {
			case why[l] != nil && os.Getenv("CI") != "":
				t.Fatal(why[l])
			case why[l] != nil:
				t.Skip(why[l])
			}
		})
	}
}

// client is a running client.
type client struct {
	*language
	stop func()
	done chan struct{} // closed when it has ended

	mu    sync.Mutex
	calls []call
	log   bytes.Buffer
}

// call is one that has ended.
type call struct {
	ended   time.Time
	took    time.Duration // as the client has it
	server  string        // the address that answered; "": none did
	failure string
}

// line is what clients print of a call.
var line = regexp.MustCompile(`^([0-9.]+) ms: (?:hello \S+, this is (\S+)|(.*))$`)

// run starts a client with a bootstrap file.
func (l *language) run(t *testing.T, bootstrap string, args ...string) *client {
	t.Helper()
	c := &client{language: l, done: make(chan struct{})}
	file := filepath.Join(t.TempDir(), "xds.json")
	if err := os.WriteFile(file, []byte(bootstrap), 0o600); err != nil {
		t.Fatal(err)
	}
	args = slices.Concat(l.command[1:], args)
	cmd := exec.CommandContext(t.Context(), l.command[0], args...)
	cmd.Dir = examples
	cmd.Env = append(os.Environ(), "GRPC_XDS_BOOTSTRAP="+file, "GRPC_EXPERIMENTAL_XDS_FEDERATION=true")
	cmd.Stderr = (*logWriter)(c)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	c.stop = func() {
		_ = cmd.Process.Kill()
		<-c.done
	}
	go func() {
		defer close(c.done)
		c.read(out)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		c.stop()
		if t.Failed() {
			t.Logf("%s: %s", c.name, c.tail())
		}
	})
	return c
}

// read takes in what the client prints.
func (c *client) read(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		c.mu.Lock()
		if match := line.FindStringSubmatch(lines.Text()); match != nil {
			ms, _ := strconv.ParseFloat(match[1], 64)
			c.calls = append(c.calls, call{time.Now(), time.Duration(ms * float64(time.Millisecond)), match[2], match[3]})
		} else {
			c.log.WriteString(lines.Text() + "\n")
		}
		c.mu.Unlock()
	}
}

type logWriter client

func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (c *client) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.log.Bytes()
	return fmt.Sprintf("%d calls; log: %s", len(c.calls), last[max(0, len(last)-2000):])
}

// since returns the calls that have ended after a time.
func (c *client) since(when time.Time) []call {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, _ := slices.BinarySearchFunc(c.calls, when, func(c call, when time.Time) int { return c.ended.Compare(when) })
	return c.calls[i:len(c.calls):len(c.calls)]
}

// all waits for the end of the client and returns its calls.
func (c *client) all(t *testing.T) []call {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(lab.WaitMost):
		t.Errorf("%s did not end", c.name)
	}
	return c.since(time.Time{})
}

// fleet is one client of each language, all with the same target.
type fleet []*client

func (fl fleet) stop() {
	for _, c := range fl {
		c.stop()
	}
}

// seeMost is how long a client may take to see something: on a busy machine Node makes 150 calls a
// second.
const seeMost = 2 * lab.WaitMost

// see waits until each client has seen something, and notes in a row, if one is given, how long
// after a time that was.
func (fl fleet) see(t *testing.T, row string, since time.Time, what func(*client) (seen time.Time, ok bool)) {
	t.Helper()
	waiting := slices.Clone(fl)
	for deadline := time.Now().Add(seeMost); len(waiting) > 0; time.Sleep(5 * time.Millisecond) {
		waiting = slices.DeleteFunc(waiting, func(c *client) bool {
			seen, ok := what(c)
			if ok && row != "" {
				measured.set(row, c.name, duration(seen.Sub(since)))
			}
			return ok
		})
		if len(waiting) > 0 && time.Now().After(deadline) {
			calls := waiting[0].since(since)
			t.Fatalf("%s: %s: not seen; the last of %d calls: %+v", row, waiting[0].name, len(calls), calls[max(0, len(calls)-3):])
		}
	}
	if row != "" {
		t.Log(measured.row(row))
	}
}

// answers sees the first call after a time that one of some servers answers, any if none is given.
func answers(since time.Time, servers ...string) func(*client) (time.Time, bool) {
	return first(since, func(c call) bool {
		return c.server != "" && (len(servers) == 0 || slices.Contains(servers, c.server))
	})
}

// fails sees the first call after a time that fails.
func fails(since time.Time) func(*client) (time.Time, bool) {
	return first(since, func(c call) bool { return c.failure != "" })
}

func first(since time.Time, is func(call) bool) func(*client) (time.Time, bool) {
	return func(c *client) (time.Time, bool) {
		calls := c.since(since)
		if i := slices.IndexFunc(calls, is); i >= 0 {
			return calls[i].ended, true
		}
		return time.Time{}, false
	}
}

// leaves sees the last call that a server answers: many later ones have gone elsewhere.
func leaves(since time.Time, server string) func(*client) (time.Time, bool) {
	return func(c *client) (time.Time, bool) {
		calls := c.since(since)
		last, later := since, 0
		for _, c := range calls {
			if later++; c.server == server {
				last, later = c.ended, 0
			}
		}
		return last, later >= 30 && time.Since(last) > 300*time.Millisecond
	}
}

// failures returns the calls since a time that have failed, from the client's first answer on: on a
// busy machine etcd may take more than a second to list a service, after which clients are told so.
func (c *client) failures(since time.Time) []call {
	calls := c.since(since)
	if started, ok := answers(time.Time{})(c); ok && started.After(since) {
		calls = c.since(started)
	}
	return slices.DeleteFunc(slices.Clone(calls), func(c call) bool { return c.failure == "" })
}

// noFailure fails the test if a call has failed since a time.
func (fl fleet) noFailure(t *testing.T, what string, since time.Time) {
	t.Helper()
	for _, c := range fl {
		if failed := c.failures(since); len(failed) > 0 {
			t.Errorf("%s: %s: %d of %d calls failed; the first: %+v", what, c.name, len(failed), len(c.since(since)), failed[0])
		}
	}
}
