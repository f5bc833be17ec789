// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// Forms lists what Parse accepts.
const Forms = "grpc, grpc:SERVICE, grpc://HOST:PORT/SERVICE, the same with grpcs, tcp, tcp://HOST:PORT, http://HOST:PORT/PATH, https://HOST:PORT/PATH or exec:COMMAND"

// maxDetail bounds what an error says of a server's or command's answer, in characters.
const maxDetail = 200

// Check is one way to find out whether a server is healthy. The zero value always passes.
type Check struct {
	text  string
	probe func(context.Context) error
}

// String returns the check as it was written.
func (c Check) String() string { return c.text }

// Parse reads a check of the server at addr, in one of these forms:
//
//	grpc[:SERVICE]               grpc.health.v1 says SERVING of SERVICE; "" is the server as a whole
//	tcp                          the server accepts a connection
//	http://HOST:PORT/PATH        the status of a GET is from 200 to 399; redirects are not followed
//	exec:COMMAND                 the command, run by sh -c, exits with 0
//
// grpcs and https use TLS and accept any certificate: the question is whether the server is
// healthy, not who it is. grpc://HOST:PORT/SERVICE and tcp://HOST:PORT ask at another address. A URL
// without a host asks at addr's, and without a port too, as in http:///healthz, at addr itself.
func Parse(text, addr string) (Check, error) {
	scheme, rest, _ := strings.Cut(text, ":")
	refuse := func(why string) (Check, error) {
		return Check{}, fmt.Errorf("check %q: %s; want %s", text, why, Forms)
	}
	if scheme == "exec" {
		if strings.TrimSpace(rest) == "" {
			return refuse("the command is missing")
		}
		return Check{text, func(ctx context.Context) error { return runCommand(ctx, rest) }}, nil
	}
	target, path := addr, rest
	if strings.HasPrefix(rest, "//") {
		u, err := url.Parse(text)
		if err != nil {
			return refuse(errors.Unwrap(err).Error())
		}
		web := scheme == "http" || scheme == "https"
		switch {
		case u.User != nil:
			text = u.Redacted()
			return refuse("checks are shown to others, so no user or password; have exec:COMMAND ask with it")
		case !web && u.RawQuery != "", u.Fragment != "":
			return refuse("neither ? nor # has a meaning here")
		}
		if target, err = complete(u, addr); err != nil {
			return refuse(err.Error())
		}
		u.Host, path = target, strings.TrimPrefix(u.Path, "/")
		if web {
			return Check{text, func(ctx context.Context) error { return getHTTP(ctx, u.String()) }}, nil
		}
	}
	switch scheme {
	case "grpc", "grpcs":
		return Check{text, func(ctx context.Context) error { return askGRPC(ctx, target, path, scheme == "grpcs") }}, nil
	case "tcp":
		if path != "" {
			return refuse("tcp takes nothing but an address")
		}
		return Check{text, func(ctx context.Context) error { return dialTCP(ctx, target) }}, nil
	case "http", "https":
		return refuse("the // is missing")
	}
	return refuse("unknown kind")
}

// complete returns the address of a URL, in which what is missing is taken from addr.
func complete(u *url.URL, addr string) (string, error) {
	host, _, err := net.SplitHostPort(addr)
	switch {
	case err != nil:
		return "", err
	case u.Host == "":
		return addr, nil
	case u.Hostname() != "":
		host = u.Hostname()
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if port == "" {
		return "", errors.New("the port is missing")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("port %s is not from 1 to 65535", port)
	}
	return net.JoinHostPort(host, port), nil
}

// Run runs the check once. What does not answer within the timeout fails.
func (c Check) Run(ctx context.Context, timeout time.Duration) error {
	if c.probe == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := c.probe(bounded)
	switch _, known := err.(answered); {
	case err == nil:
		return nil
	case !known && ctx.Err() == nil && (bounded.Err() != nil || os.IsTimeout(err)):
		err = fmt.Errorf("no answer within %v", timeout)
	}
	why := err.Error()
	why = why[:min(len(why), 4*maxDetail)]
	return &failure{check: c.text, why: printable.Shorten(printable.Escape(why), maxDetail)}
}

// failure is why a check failed.
type failure struct{ check, why string }

func (f *failure) Error() string { return f.check + ": " + f.why }

// public returns an error for everybody: of a failure only which kind of check it is, since the check and
// what it was answered may name what is not for everybody.
func public(err error) error {
	if f := (*failure)(nil); errors.As(err, &f) {
		kind, _, _ := strings.Cut(f.check, ":")
		return fmt.Errorf("its %s check fails", kind)
	}
	return err
}
