// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/term"
	"google.golang.org/grpc"
)

// resolveCredentials sets user and password from the sources, the farthest first, so that a nearer one wins, in
// whatever form it gives the password: in --user, as a password or as a file. Once a source names another user,
// the password of a farther one is not his.
func (a *app) resolveCredentials(sources []source) error {
	var user, password, file string
	var conflict error // of the source that has the password
	for rank, from := range slices.Backward(sources) {
		given := make(map[string]string)
		for _, name := range credentialNames {
			given[name], _, _ = from.get(name)
		}
		name, secret, inline := strings.Cut(given["user"], ":")
		if name != "" && name != user {
			if user != "" {
				password, file, conflict = "", "", nil
			}
			user = name
		}
		passwordFrom := ""
		switch {
		case given["password"] != "" || given["password-file"] != "":
			password, file, passwordFrom = given["password"], given["password-file"], "password"
		case inline:
			password, file, passwordFrom = secret, "", "user"
		default:
			continue
		}
		a.origins["password"], conflict = origin{rank, from.label(passwordFrom)}, nil
		if password != "" && file != "" {
			conflict = fail(exitUsage, "%s and %s exclude each other; give one", from.label("password"), from.label("password-file"))
		}
	}
	if conflict != nil {
		return conflict
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
	switch {
	case a.user == "" && a.password+a.passwordFile != "" && a.origins["password"].rank == 0: // a variable may be left over
		return fail(exitUsage, "a password was given without a user; give --user NAME as well")
	case a.user == "" || a.password != "":
		return nil
	}
	if a.passwordFile != "" {
		var err error
		if a.password, err = readPassword(a.passwordFile); err != nil {
			return fail(exitUsage, "--password-file: %v", err)
		}
		return nil
	}
	if stdin, ok := a.stdin.(*os.File); ok && isTerminal(stdin) {
		return a.askPassword(ctx, stdin)
	}
	return a.noPassword()
}

func readPassword(file string) (string, error) {
	data, err := os.ReadFile(file)
	password := strings.TrimRight(string(data), "\r\n")
	if err == nil && password == "" {
		err = fmt.Errorf("%s: the file is empty", file)
	}
	return password, err
}

// rereadPassword has each login read the password file, so that a new password needs no restart. Where the file cannot be
// read, the password that was read at the start is used.
func (a *app) rereadPassword() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if login, ok := req.(*pb.AuthenticateRequest); ok && a.passwordFile != "" {
			if password, err := readPassword(a.passwordFile); err == nil {
				login.Password = password
			}
		}
		return invoke(ctx, method, req, reply, conn, opts...)
	})
}

func (a *app) noPassword() error {
	return fail(exitUsage, "user %q has no password; give --user name:password, --password or --password-file", a.user)
}

// askPassword reads the password from a terminal without echo, which is off before the question is to be seen. In the end,
// at a signal too, the terminal echoes again; the read that waits for it then ends with the process.
func (a *app) askPassword(ctx context.Context, terminal *os.File) error {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err == nil {
		err = stopEcho(fd)
	}
	if err != nil {
		return fmt.Errorf("read the password: %w", err)
	}
	defer term.Restore(fd, before)
	fmt.Fprintf(a.stderr, "password of etcd user %s: ", strconv.QuoteToGraphic(a.user))
	password, err := untilDone(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	fmt.Fprintln(a.stderr)
	if ctx.Err() != nil {
		return err
	}
	if a.password = string(password); a.password == "" {
		return a.noPassword()
	}
	return nil
}
