// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// resolveCredentials sets user and password from the first source that has them. A password from a nearer
// source wins, in whatever form it is given: in --user, as a password or as a file.
func (a *app) resolveCredentials(sources []source) error {
	user, password, file := "", "", ""
	known := false // whether the password is known
	for rank, from := range sources {
		given := make(map[string]string)
		for _, name := range credentialNames {
			given[name], _, _ = from.get(name)
		}
		inline := false
		name, secret, _ := strings.Cut(given["user"], ":")
		if user == "" {
			user = name
			inline = strings.Contains(given["user"], ":")
		}
		switch {
		case known:
			continue
		case given["password"] != "" && given["password-file"] != "":
			return fail(exitUsage, "%s and %s exclude each other; give one", from.label("password"), from.label("password-file"))
		case given["password"] != "" || given["password-file"] != "":
			password, file, known = given["password"], given["password-file"], true
		case inline:
			password, known = secret, true
			a.origins["password"] = origin{rank, from.label("user")}
		}
	}
	a.user, a.password, a.passwordFile = user, password, file
	nearer, err := a.nearer("user", "auth-jwt-token")
	switch {
	case err != nil:
		return err
	case nearer == "auth-jwt-token":
		a.user, a.password, a.passwordFile = "", "", ""
	case nearer == "user":
		a.token = ""
	}
	return nil
}

// resolvePassword reads the password file, or asks for the password on a terminal. A user without a
// password is an error: etcd's client would not log in at all.
func (a *app) resolvePassword(ctx context.Context) error {
	if a.user == "" || a.password != "" {
		return nil
	}
	if a.passwordFile != "" {
		data, err := os.ReadFile(a.passwordFile)
		if err != nil {
			return fail(exitUsage, "--password-file: %v", err)
		}
		a.password = strings.TrimRight(string(data), "\r\n")
		if a.password == "" {
			return fail(exitUsage, "--password-file %s: the file is empty", a.passwordFile)
		}
		return nil
	}
	if stdin, ok := a.stdin.(*os.File); ok && isTerminal(stdin) {
		return a.askPassword(ctx, stdin)
	}
	return a.noPassword()
}

func (a *app) noPassword() error {
	return fail(exitUsage, "user %q has no password; give --user name:password, --password or --password-file", a.user)
}

// askPassword reads the password from a terminal without echo. At a signal the terminal echoes again; the
// read that waits for it ends with the process.
func (a *app) askPassword(ctx context.Context, terminal *os.File) error {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return fmt.Errorf("read the password: %w", err)
	}
	fmt.Fprintf(a.stderr, "password of etcd user %s: ", strconv.QuoteToGraphic(a.user))
	type answer struct {
		password []byte
		err      error
	}
	answered := make(chan answer, 1)
	go func() {
		password, err := term.ReadPassword(fd)
		answered <- answer{password, err}
	}()
	select {
	case got := <-answered:
		fmt.Fprintln(a.stderr)
		if a.password = string(got.password); a.password == "" {
			return a.noPassword()
		}
		return nil
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
		_ = term.Restore(fd, before)
		return context.Cause(ctx)
	}
}
