// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/resolver"
)

func newDemo(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show Rollcall at work, with its own etcd and servers",
		Long: "demo starts an etcd and gRPC servers, each in its own process, and calls etcd:///" + demoService + "\n" +
			"all the time, while servers join, die and drain and etcd is killed. Each step is measured.\n" +
			"The exit code is 0 only if every step keeps its promise. It takes half a minute, needs\n" +
			"nothing and leaves nothing behind.",
		Example: "  rollcall demo\n  rollcall demo -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context()) },
	}
}

// outcome is the result of a step.
type outcome struct {
	Name    string   `json:"name"`
	Promise string   `json:"promise"`
	Figures []figure `json:"figures"`
	Kept    bool     `json:"kept"`
	Error   string   `json:"error,omitempty"`
	Seconds float64  `json:"seconds"`
}

func (a *app) demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the demo took more than a minute"))
	defer cancel()
	s, closeStage, err := a.setStage(ctx)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	outcomes, err := a.playAll(ctx, s)
	closeStage()
	if isSignal(err) {
		return err
	}
	if err := a.reportDemo(outcomes); err != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	for _, o := range outcomes {
		if !o.Kept {
			return fail(exitOther, "demo: %q did not keep its promise: %s", o.Name, o.Promise)
		}
	}
	return nil
}

// setStage starts etcd, a channel and the callers. The first step starts the servers.
func (a *app) setStage(ctx context.Context) (s *stage, closeStage func(), err error) {
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
	if s.sub, err = s.directory.Subscribe(demoService); err != nil {
		return nil, nil, err
	}
	closers = append(closers, s.sub.Close)
	builder, err := resolver.NewBuilder(s.client)
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient("etcd:///"+demoService, grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
	if err != nil {
		return nil, nil, err
	}
	closers = append(closers, func() { _ = conn.Close() })
	s.load = startLoad(conn)
	closers = append(closers, s.load.stop)
	return s, closeStage, nil
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
		began := time.Now()
		figures, kept, err := step.play(ctx, s)
		took := time.Since(began)
		o := outcome{Name: step.name, Promise: step.promise, Figures: figures, Kept: kept && err == nil, Seconds: took.Seconds()}
		if err != nil {
			o.Error = err.Error()
		}
		outcomes = append(outcomes, o)
		if terminal {
			fmt.Fprint(a.stderr, "\r\x1b[K")
		}
		fmt.Fprintf(a.stderr, "%s  (%s; %.1f s)\n", head, describe(o), took.Seconds())
		if err != nil {
			return outcomes, err
		}
	}
	return outcomes, nil
}

func describe(o outcome) string {
	if o.Error != "" {
		return oneLine(o.Error)
	}
	parts := make([]string, len(o.Figures))
	for i, f := range o.Figures {
		parts[i] = f.String()
	}
	return strings.Join(parts, ", ")
}

func (a *app) reportDemo(outcomes []outcome) error {
	if a.json() {
		ok := len(outcomes) == len(demoSteps)
		for _, o := range outcomes {
			ok = ok && o.Kept
		}
		encoder := json.NewEncoder(a.stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(struct {
			APIVersion string    `json:"apiVersion"`
			Kind       string    `json:"kind"`
			OK         bool      `json:"ok"`
			Steps      []outcome `json:"steps"`
		}{"rollcall/v1", "DemoReport", ok, outcomes})
	}
	fmt.Fprintln(a.stdout)
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STEP\tPROMISE\tMEASURED\tKEPT")
	for _, o := range outcomes {
		kept := "yes"
		if !o.Kept {
			kept = "NO"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", o.Name, o.Promise, describe(o), kept)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(a.stdout, `
Try next:
  rollcall dev                                    an etcd to play with; in another terminal, paste its export line, then
  rollcall register my-service --addr 127.0.0.1:50051
  rollcall ls
  rollcall watch my-service
`)
	return err
}

// isTerminal reports whether w is a terminal, where progress can be redrawn.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
