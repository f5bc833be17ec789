// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// tick is how often the agent looks at its file and at what its checks have found.
const tick = time.Second

// Options are the settings of an agent.
type Options struct {
	File   string                      // the services file; required
	Socket string                      // where it tells its status
	Drain  time.Duration               // how long clients are given to move before an endpoint is removed
	Reload <-chan os.Signal            // asks to read the file again
	Getenv func(string) (string, bool) // of systemd's variables
	Log    *slog.Logger                // required
}

// Agent keeps the endpoints of a file registered.
type Agent struct {
	opts Options
	log  *slog.Logger

	// Owned by Run.
	config   *Config // as New has read it
	file     followed
	notifier *notifier
	said     string // what systemd was told last

	mu         sync.Mutex
	fleet      *fleet    // what is in force
	loaded     time.Time // when it was read
	heartbeat  time.Time // when the loop last went round
	fileErr    error     // why the file as it is now is not in force
	stopping   bool      // its endpoints drain
	preserving time.Time // since when all checks fail, so that nothing is taken out; zero: they do not
}

// Load reads a services file. Its error names the file.
func Load(path string) (*Config, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parseNamed(path, text)
}

// New returns an agent that Run runs. It fails if the file cannot be used; later on, the last good one
// stays in force.
func New(opts Options) (*Agent, error) {
	a := &Agent{opts: opts, log: opts.Log, file: followed{path: opts.File}}
	config, err := a.parse(a.file.read())
	a.config = config
	return a, err
}

// Run keeps what the file lists registered until ctx ends, then drains and removes it.
func (a *Agent) Run(ctx context.Context, directory *rollcall.Directory) (err error) {
	if a.notifier, err = newNotifier(a.opts.Getenv); err != nil {
		return err
	}
	defer a.notifier.close()
	s, err := openSocket(a.opts.Socket)
	if err != nil {
		return err
	}
	a.fleet = newFleet(directory, a.opts.Drain, a.log)
	a.take(a.config)
	s.serve(a.Status)
	defer s.close()
	a.notifier.tell("READY=1")
	a.follow(ctx)
	a.stop()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		err = a.fleet.close()
	}()
	a.beatUntil(stopped)
	return err
}

// stop tells that the agent ends, which takes as long as its endpoints need to drain.
func (a *Agent) stop() {
	a.mu.Lock()
	a.stopping = true
	a.mu.Unlock()
	a.notifier.tell("STOPPING=1", "STATUS=draining")
	a.log.Info("stopping; endpoints drain, and are removed then", "endpoints", len(a.fleet.members), "drain", a.opts.Drain)
}

// follow takes what the file becomes and watches over the checks, until ctx ends.
func (a *Agent) follow(ctx context.Context) {
	beats, stop := a.notifier.beats()
	defer stop()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-a.opts.Reload:
			a.reload(a.file.read())
		case <-ticker.C:
			if c, changed := a.file.poll(); changed {
				a.reload(c)
			}
			a.fleet.tidy()
			a.mu.Lock()
			a.heartbeat = time.Now()
			a.mu.Unlock()
			a.watchNetwork()
			a.tellStatus()
		case <-beats:
			a.notifier.tell("WATCHDOG=1")
		case <-ctx.Done():
			return
		}
	}
}

// beatUntil keeps systemd's watchdog quiet while the agent stops.
func (a *Agent) beatUntil(stopped <-chan struct{}) {
	beats, stop := a.notifier.beats()
	defer stop()
	for {
		select {
		case <-beats:
			a.notifier.tell("WATCHDOG=1")
		case <-stopped:
			return
		}
	}
}

// parse returns what the file says, or why it cannot be used.
func (a *Agent) parse(c content) (*Config, error) {
	if c.err != nil {
		return nil, c.err
	}
	return parseNamed(a.opts.File, c.text)
}

// reload takes the file, unless something is wrong with it: then all stays as it is.
func (a *Agent) reload(c content) {
	a.notifier.reloading()
	defer a.notifier.tell("READY=1")
	config, err := a.parse(c)
	if err != nil {
		a.mu.Lock()
		a.fileErr = err
		a.mu.Unlock()
		a.log.Error("services file is not usable; what it said before stays in force", "file", a.opts.File, "cause", err)
		return
	}
	a.take(config)
}

// take brings a file into force.
func (a *Agent) take(config *Config) {
	changes := a.fleet.apply(config)
	a.mu.Lock()
	a.loaded, a.fileErr = time.Now(), nil
	a.heartbeat = a.loaded
	a.mu.Unlock()
	a.log.Info("services file in force", "file", a.opts.File, "endpoints", len(config.Services),
		"added", changes.added, "changed", changes.changed, "removed", changes.removed)
}

// watchNetwork tells when all checks begin to fail together, and when that ends.
func (a *Agent) watchNetwork() {
	all := a.fleet.allFail()
	a.mu.Lock()
	was := a.preserving
	switch {
	case all && was.IsZero():
		a.preserving = time.Now()
	case !all:
		a.preserving = time.Time{}
	}
	a.mu.Unlock()
	switch {
	case all && was.IsZero():
		a.log.Warn("all checks fail: suspecting the network of the agent; self-preservation takes nothing out")
	case !all && !was.IsZero():
		a.log.Info("checks pass again; endpoints whose checks go on failing are taken out", "after", time.Since(was).Round(time.Second))
	}
}

// tellStatus tells systemd the status, where it has changed.
func (a *Agent) tellStatus() {
	status := a.Status()
	if text := status.Summary(); text != a.said {
		a.said = text
		a.notifier.status(text)
	}
}

// Status returns what the agent does.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Status{PID: os.Getpid(), Heartbeat: a.heartbeat, Stopping: a.stopping, File: a.opts.File, Loaded: a.loaded, Endpoints: a.fleet.endpoints()}
	if a.fileErr != nil {
		s.FileError = printable.Error(a.fileErr)
	}
	if since := a.preserving; !since.IsZero() {
		s.SelfPreservationSince = &since
	}
	return s
}

// parseNamed is Parse with errors that name the file.
func parseNamed(path string, text []byte) (*Config, error) {
	config, err := Parse(text)
	if err == nil {
		return config, nil
	}
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return nil, named(path, all.Unwrap())
	}
	return nil, named(path, []error{err})
}

// FileError is what is wrong with a services file.
type FileError struct {
	File  string
	Wrong []error
}

func named(path string, wrong []error) error { return &FileError{path, wrong} }

func (e *FileError) Error() string {
	text := fmt.Sprintf("%s: %v", e.File, e.Wrong[0])
	if more := len(e.Wrong) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}
