// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// outputGrace is how long a command's output is awaited once it has ended: what it has left running
// in the background may still hold its pipe.
const outputGrace = 100 * time.Millisecond

// runCommand runs a command by sh, without input. When ctx ends, its whole process group is killed.
func runCommand(ctx context.Context, command string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	var output tail
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = outputGrace
	inGroup(cmd)
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) { // it has exited with 0
		return nil
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if line := output.lastLine(); line != "" {
			return fmt.Errorf("%v: %s", exit, line)
		}
	}
	return err
}

// tail keeps the last bytes that are written to it.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	t.data = t.data[max(0, len(t.data)-4*maxDetail):]
	return len(p), nil
}

func (t *tail) lastLine() string {
	lines := strings.Split(strings.TrimSpace(string(t.data)), "\n")
	return detail(lines[len(lines)-1])
}
