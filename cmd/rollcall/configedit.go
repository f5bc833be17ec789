// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// editConfig lets a service config be edited, until it is valid, and writes it. One that is changed meanwhile is not
// overwritten.
func (a *app) editConfig(ctx context.Context, service string, dryRun bool) error {
	var before *rollcall.ServiceConfig
	err := a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		dir, err := rollcall.SharedDirectory(client)
		if err != nil {
			return err
		}
		before, err = dir.ServiceConfig(ctx, service)
		return err
	})
	if err != nil {
		return err
	}
	text := renderConfig(before).indented()
	if text == "" {
		text = (&serviceConfig{text: sampleConfig}).indented()
	}
	file, err := os.CreateTemp("", "rollcall-config-*.json")
	if err == nil {
		_, err = file.WriteString(text)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return fmt.Errorf("write a file to edit: %w", err)
	}
	edited, err := a.editUntilValid(ctx, file.Name(), text)
	if err == nil && edited != "" {
		err = a.setConfig(ctx, service, edited, before, dryRun)
	}
	if left, unread := os.ReadFile(file.Name()); err != nil && (unread != nil || string(left) != text) {
		return fmt.Errorf("%w; what you wrote is in %s", err, file.Name())
	}
	return errors.Join(err, os.Remove(file.Name()))
}

// editUntilValid returns the service config that was edited in a file, "" if it is as it was or empty.
func (a *app) editUntilValid(ctx context.Context, file, was string) (string, error) {
	for {
		if err := a.openEditor(ctx, file); err != nil {
			return "", err
		}
		_, data, err := a.readFile(ctx, file, "the service config", maxConfig)
		text := strings.TrimSpace(string(data))
		switch {
		case err == nil && text == "":
			a.say("the file is empty; nothing was written; to remove a service config, see rollcall config rm")
			return "", nil
		case err == nil && text == strings.TrimSpace(was):
			a.say("it was not changed; nothing was written")
			return "", nil
		case err == nil:
			err = checkConfig(text)
		}
		if err == nil {
			return text, nil
		}
		again, asking := a.ask(ctx, fmt.Sprintf("%v. Edit it again?", err))
		switch {
		case asking != nil:
			return "", asking
		case !again:
			return "", err
		}
	}
}

// editing is whether an editor has the terminal. Ctrl-C, which reaches this process as well, is then a key of
// the editor's.
var editing atomic.Bool

// openEditor runs the user's editor on a file until it ends.
func (a *app) openEditor(ctx context.Context, file string) error {
	editor := "vi"
	if runtime.GOOS == "windows" {
		editor = "notepad"
	}
	for _, name := range []string{"EDITOR", "VISUAL"} { // the last one wins
		if value, ok := a.getenv(name); ok && value != "" {
			editor = value
		}
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", "exec "+editor+` "$1"`, "sh", file) // it may have arguments; signals are for it
	if runtime.GOOS == "windows" {
		words := append(strings.Fields(editor), file)
		cmd = exec.CommandContext(ctx, words[0], words[1:]...)
	} else {
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it leaves the terminal as it was
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	editing.Store(true)
	defer editing.Store(false)
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return fail(exitOther, "the editor %q: %v; nothing was written; name another in EDITOR, or give a FILE", editor, err)
	}
	return nil
}
