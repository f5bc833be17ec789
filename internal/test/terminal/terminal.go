// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package terminal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"golang.org/x/term"
)

// patience is how long a screen may take to show what is awaited.
const patience = 30 * time.Second

// Terminal is an emulated terminal with a command in its foreground.
type Terminal struct {
	tb           testing.TB
	cmd          *exec.Cmd
	control, tty *os.File // the emulator's side, and the command's
	before       *term.State
	working      sync.WaitGroup
	ended        bool

	mu       sync.Mutex
	emulator *vt.Emulator
	written  bytes.Buffer
}

// Start starts a command in a terminal of that size. It is killed when the test ends, if it still runs then.
func Start(tb testing.TB, cmd *exec.Cmd, width, height int) *Terminal {
	tb.Helper()
	control, tty, err := pty.Open()
	if err != nil {
		tb.Fatalf("open a pseudo-terminal: %v", err)
	}
	x := &Terminal{tb: tb, cmd: cmd, control: control, tty: tty, emulator: vt.NewEmulator(width, height)}
	x.Resize(width, height)
	x.before = x.settings()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	x.working.Go(x.draw)
	x.working.Go(func() { _, _ = io.Copy(control, x.emulator) })
	tb.Cleanup(func() {
		if !x.ended {
			_ = cmd.Process.Kill()
			x.End()
		}
	})
	return x
}

// draw draws what the command writes.
func (x *Terminal) draw() {
	buf := make([]byte, 4096)
	for {
		n, err := x.control.Read(buf)
		x.mu.Lock()
		x.written.Write(buf[:n])
		_, _ = x.emulator.Write(buf[:n])
		x.mu.Unlock()
		if err != nil {
			_ = x.emulator.InputPipe().(io.Closer).Close()
			return
		}
	}
}

func (x *Terminal) settings() *term.State {
	x.tb.Helper()
	state, err := term.GetState(int(x.tty.Fd()))
	if err != nil {
		x.tb.Fatal(err)
	}
	return state
}

// Resize gives the terminal another size, of which the command is told.
func (x *Terminal) Resize(width, height int) {
	x.tb.Helper()
	x.mu.Lock()
	x.emulator.Resize(width, height)
	x.mu.Unlock()
	if err := pty.Setsize(x.control, &pty.Winsize{Cols: uint16(width), Rows: uint16(height)}); err != nil {
		x.tb.Fatal(err)
	}
}

// Type types text. Keys that are no characters are typed as a terminal sends them.
func (x *Terminal) Type(text string) {
	x.tb.Helper()
	if _, err := x.control.WriteString(text); err != nil {
		x.tb.Fatal(err)
	}
}

// Screen is what can be seen, without the blanks at the ends of its lines.
func (x *Terminal) Screen() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	lines := strings.Split(x.emulator.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " \r")
	}
	return strings.Join(lines, "\n")
}

// Written is all that the command has written.
func (x *Terminal) Written() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.written.String()
}

// Await waits until all parts can be seen, and returns the screen.
func (x *Terminal) Await(parts ...string) string {
	x.tb.Helper()
	return x.AwaitScreen(strings.Join(parts, " and "), func(screen string) bool {
		for _, part := range parts {
			if !strings.Contains(screen, part) {
				return false
			}
		}
		return true
	})
}

// AwaitScreen waits until a screen is as it should be, and returns it.
func (x *Terminal) AwaitScreen(what string, good func(screen string) bool) string {
	x.tb.Helper()
	for until := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		screen := x.Screen()
		if good(screen) {
			return screen
		}
		if time.Now().After(until) {
			x.tb.Fatalf("not within %v: %s; the screen is\n%s", patience, what, screen)
		}
	}
}

// CPU is the processor time that the command has used, by Linux's /proc.
func (x *Terminal) CPU() time.Duration {
	x.tb.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", x.cmd.Process.Pid))
	if err != nil {
		x.tb.Skip(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64 // hundredths of a second: fields 14 and 15, the third being the first here
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			x.tb.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// Signal sends the command a signal.
func (x *Terminal) Signal(sig os.Signal) {
	x.tb.Helper()
	if err := x.cmd.Process.Signal(sig); err != nil {
		x.tb.Fatal(err)
	}
}

// End waits for the command's end, and returns its exit code. The terminal must then be as it was.
func (x *Terminal) End() int {
	x.tb.Helper()
	timer := time.AfterFunc(patience, func() { _ = x.cmd.Process.Kill() })
	err := x.cmd.Wait()
	x.ended = true
	if !timer.Stop() {
		x.tb.Errorf("still running after %v; the screen is\n%s", patience, x.Screen())
	}
	after := x.settings()
	_ = x.tty.Close() // its last user: reading ends
	x.working.Wait()
	_ = x.control.Close()
	if x.cmd.ProcessState.Exited() {
		if *after != *x.before {
			x.tb.Errorf("the terminal's settings were %+v and are %+v", *x.before, *after)
		}
		if x.emulator.IsAltScreen() || x.emulator.CursorHidden() {
			x.tb.Errorf("alternate screen %v, cursor hidden %v at the end", x.emulator.IsAltScreen(), x.emulator.CursorHidden())
		}
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		x.tb.Error(err)
	}
	return x.cmd.ProcessState.ExitCode()
}
