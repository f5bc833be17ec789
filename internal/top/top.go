// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package top is a live view of services on a terminal.
//
// # Concurrency
//
// Model is pure: all that it knows comes by Update. Run subscribes and feeds it, from one goroutine that it
// joins.
package top

import (
	"context"
	"errors"
	"io"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

const (
	// refresh is the least time between two snapshots that are shown; the first after a rest is shown at
	// once. BenchmarkTop of cmd/rollcall shows what it saves where something changes all the time.
	refresh = 500 * time.Millisecond
	// framesPerSecond is how often the terminal is written to at most, so that keys feel immediate.
	framesPerSecond = 15
	// reasonTimeout bounds the question why endpoints went: what came after it waits.
	reasonTimeout = 500 * time.Millisecond
)

// ErrInterrupted is returned by Run after Ctrl-C.
var ErrInterrupted = errors.New("interrupted at the terminal")

// Terminal is where a view is shown.
type Terminal struct {
	In  io.Reader
	Out io.Writer
}

// Run shows what sub follows, from its snapshot first on, until the user quits, ctx ends or sub fails.
func Run(ctx context.Context, terminal Terminal, dir *rollcall.Directory, sub *rollcall.Subscription, first *rollcall.Snapshot, opts Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	model := New(opts)
	model.Update(Content{Snapshot: first, Now: time.Now()})
	// No context: a program that is killed does not wait for its reader. The end of feed quits it.
	program := tea.NewProgram(model, tea.WithInput(terminal.In), tea.WithOutput(terminal.Out),
		tea.WithoutSignalHandler(), tea.WithFPS(framesPerSecond))
	fed := make(chan error, 1)
	go func() {
		err := feed(ctx, program.Send, dir, sub, first)
		program.Quit()
		fed <- err
	}()
	_, err := program.Run()
	ended := ctx.Err() != nil
	cancel()
	failed := <-fed
	switch {
	case model.interrupted:
		return ErrInterrupted
	case ended:
		return context.Cause(ctx)
	case err != nil:
		return err
	case model.quit:
		return nil
	}
	return failed
}

// feed sends each snapshot, with what changed and why, until ctx ends or sub fails.
func feed(ctx context.Context, send func(tea.Msg), dir *rollcall.Directory, sub *rollcall.Subscription, snap *rollcall.Snapshot) error {
	pause := time.NewTicker(refresh)
	defer pause.Stop()
	for {
		next, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		events := inventory.Events(snap, next, rollcall.SplitKey)
		asking, cancel := context.WithTimeout(ctx, reasonTimeout)
		inventory.Explain(asking, dir, events)
		cancel()
		send(Content{Snapshot: next, Events: events, Now: time.Now()})
		snap = next
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
