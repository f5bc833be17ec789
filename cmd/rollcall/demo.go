// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/rollcall-grpc/rollcall"
)

func newDemo(a *app) *cobra.Command {
	var opts demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show Rollcall at work, with its own etcd and servers",
		Long: "demo starts an etcd and gRPC servers, each in its own process, and calls etcd:///" + demoService + "\n" +
			"all the time, while servers join, die and drain and etcd is killed. Each step is measured.\n" +
			"The exit code is 0 only if every step keeps its promise. It takes half a minute, needs\n" +
			"nothing and leaves nothing behind.\n\n" +
			"With --compare other servers and callers use etcd's own Go package (client/v3/naming, with\n" +
			"Grant and KeepAlive) on the same etcd, each step is done to them as well, and both are shown.\n" +
			"With --keep etcd and the servers go on in the end, with a page, to be looked at, until Ctrl-C.",
		Example: "  rollcall demo\n  rollcall demo --compare\n  rollcall demo --keep\n  rollcall demo -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), opts) },
	}
	cmd.Flags().BoolVar(&opts.compare, "compare", false, "do each step with etcd's own package as well, and show both")
	cmd.Flags().BoolVar(&opts.keep, "keep", false, "leave etcd and the servers running, with a page, until Ctrl-C")
	return cmd
}

// demoOptions are the flags of demo.
type demoOptions struct{ compare, keep bool }

// demoLimit is how long the steps of one package may take.
const demoLimit = time.Minute

func (a *app) demo(ctx context.Context, opts demoOptions) error {
	limit := demoLimit
	if opts.compare {
		limit *= 2
	}
	playing, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the demo took more than %v", limit))
	defer cancel()
	s, closeStage, err := a.setStage(playing, opts.compare)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer closeStage()
	outcomes, err := a.playAll(playing, s)
	if isSignal(err) {
		return err
	}
	if err := a.reportDemo(outcomes); err != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if opts.keep {
		if err := a.keepDemo(ctx, s); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	for _, o := range outcomes {
		if !o.Kept {
			return fail(exitOther, "demo: %q did not keep its promise: %s", o.Name, o.Promise)
		}
	}
	return nil
}

// keepDemo prints how to look at what runs, and waits for a signal.
func (a *app) keepDemo(ctx context.Context, s *stage) error {
	for _, side := range s.packages {
		side.load.stop()
	}
	page, err := beginConsole(s.lab.endpoint, "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer page.end()
	fmt.Fprintf(a.stderr, `
etcd and three servers go on until Ctrl-C. The page is at %s; in another terminal:
  export ROLLCALL_ENDPOINTS=%s
  rollcall ls
  rollcall watch %s
`, page.server.url(), s.lab.endpoint, demoService)
	<-ctx.Done()
	return nil
}

// setStage starts etcd, and a channel and callers for each package. The first step starts the servers.
func (a *app) setStage(ctx context.Context, compare bool) (s *stage, closeStage func(), err error) {
	var closers []func()
	closeStage = func() {
		for i := len(closers) - 1; i >= 0; i-- {
			closers[i]()
		}
	}
	defer func() {
		if err != nil {
			closeStage()
		}
	}()
	s = &stage{}
	if s.lab, err = newLab(); err != nil {
		return nil, nil, err
	}
	closers = append(closers, func() { _ = s.lab.close() })
	if err = s.lab.startEtcd(ctx); err != nil {
		return nil, nil, err
	}
	if s.client, err = rollcall.NewClient(rollcall.ClientConfig(s.lab.endpoint)); err != nil {
		return nil, nil, err
	}
	closers = append(closers, func() { _ = s.client.Close() })
	if s.directory, err = rollcall.SharedDirectory(s.client); err != nil {
		return nil, nil, err
	}
	packages := []naming{rollcallNaming}
	if compare {
		packages = append(packages, etcdNaming)
	}
	for _, n := range packages {
		side, closeSide, err := s.newSide(n)
		if err != nil {
			return nil, nil, err
		}
		closers = append(closers, closeSide)
		s.packages = append(s.packages, side)
	}
	return s, closeStage, nil
}

// newSide makes a channel that is called all the time.
func (s *stage) newSide(n naming) (_ *side, closeSide func(), err error) {
	sub, err := s.directory.Subscribe(n.service)
	if err != nil {
		return nil, nil, err
	}
	conn, closeConn, err := n.dial(s)
	if err != nil {
		sub.Close()
		return nil, nil, err
	}
	is := &side{stage: s, naming: n, sub: sub, load: startLoad(conn)}
	return is, func() {
		is.load.stop()
		closeConn()
		sub.Close()
	}, nil
}

// playAll plays the steps until one returns an error.
func (a *app) playAll(ctx context.Context, s *stage) ([]outcome, error) {
	terminal := isTerminal(a.stderr)
	var outcomes []outcome
	for i, step := range demoSteps {
		head := fmt.Sprintf("%d/%d  %s", i+1, len(demoSteps), step.name)
		if terminal {
			fmt.Fprintf(a.stderr, "%s ...", head)
		}
		o, err := step.playAll(ctx, s)
		outcomes = append(outcomes, o)
		if terminal {
			fmt.Fprint(a.stderr, "\r\x1b[K")
		}
		fmt.Fprintf(a.stderr, "%s  (%.1f s)\n", head, o.Seconds)
		if err != nil {
			return outcomes, err
		}
	}
	return outcomes, nil
}

// playAll plays a step with each package: one after the other, unless what happens concerns all.
// Only an error of Rollcall's ends the demo.
func (p step) playAll(ctx context.Context, s *stage) (o outcome, err error) {
	o = outcome{Name: p.name, Promise: p.promise}
	began := time.Now()
	results := make([]comparison, len(s.packages))
	if p.happen == nil {
		for i, side := range s.packages {
			results[i] = p.playOne(ctx, side)
		}
	} else {
		for _, side := range s.packages {
			side.load.reset()
		}
		if err := p.happen(ctx, s.lab); err != nil {
			o.Error = err.Error()
			return o, err
		}
		var playing sync.WaitGroup
		for i, side := range s.packages {
			playing.Go(func() { results[i] = p.playOne(ctx, side) })
		}
		playing.Wait()
	}
	o.Seconds = time.Since(began).Seconds()
	o.Figures, o.Kept, o.Error = results[0].Figures, results[0].Kept, results[0].Error
	if len(results) > 1 {
		o.EtcdPackage = &results[1]
	}
	return o, cmp.Or(s.packages[0].failed, context.Cause(ctx))
}

// stepLimit is how long a step may take.
const stepLimit = 30 * time.Second

// playOne plays a step with one package, unless an earlier one has failed.
func (p step) playOne(ctx context.Context, s *side) (is comparison) {
	ctx, cancel := context.WithTimeoutCause(ctx, stepLimit, fmt.Errorf("the step took more than %v", stepLimit))
	defer cancel()
	if s.failed != nil {
		return comparison{Error: "not played, since a step before has failed"}
	}
	is.Figures, is.Kept, s.failed = p.play(ctx, s)
	if s.failed != nil {
		is.Kept, is.Error = false, s.failed.Error()
	}
	return is
}

func (a *app) reportDemo(outcomes []outcome) error {
	if a.json() {
		ok := len(outcomes) == len(demoSteps)
		for _, o := range outcomes {
			ok = ok && o.Kept
		}
		return a.printJSON(struct {
			APIVersion string    `json:"apiVersion"`
			Kind       string    `json:"kind"`
			OK         bool      `json:"ok"`
			Steps      []outcome `json:"steps"`
		}{apiVersion, "DemoReport", ok, outcomes})
	}
	_, err := fmt.Fprintf(a.stdout, `
%s
Try next:
  rollcall dev           # an etcd to play with; paste its export line elsewhere
  rollcall register my-service --addr 127.0.0.1:50051
  rollcall ls
  rollcall watch my-service
`, demoTable(outcomes))
	return err
}
