// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// outputGrace is how long a command's output is awaited once its process group has ended: what has left
// the group may still hold the pipe.
const outputGrace = time.Second

// runCommand runs a command by sh, without input and without etcd's credentials. When it has ended, or
// ctx, what is left of its process group is killed.
func runCommand(ctx context.Context, command string) error {
	output, pipe, err := os.Pipe()
	if err != nil {
		return err
	}
	defer output.Close()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Env = Environ()
	cmd.Stdout, cmd.Stderr = pipe, pipe
	inGroup(cmd)
	err = cmd.Start()
	pipe.Close()
	if err != nil {
		return err
	}
	last := make(chan string, 1)
	go func() {
		var t tail
		_, _ = io.Copy(&t, output)
		last <- t.lastLine()
	}()
	err = cmd.Wait()
	_ = cmd.Cancel()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		return err
	}
	select {
	case line := <-last:
		if line != "" {
			err = fmt.Errorf("%w: %s", err, line)
		}
	case <-time.After(outputGrace):
	}
	return err
}

// Environ returns this process's environment without the credentials for etcd, which are nothing for the
// commands that it starts.
func Environ() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		for _, prefix := range []string{"ROLLCALL_", "ETCDCTL_"} {
			if setting, ok := strings.CutPrefix(name, prefix); ok {
				return slices.Contains([]string{"USER", "PASSWORD", "PASSWORD_FILE", "AUTH_JWT_TOKEN"}, setting)
			}
		}
		return false
	})
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
	return lines[len(lines)-1]
}
