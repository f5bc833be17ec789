// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/netutil"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/console"
)

const (
	// maxConsoleConnections bounds the connections of browsers; one has up to six.
	maxConsoleConnections = 4096
	// minToken is the least length of a token, which nobody should guess.
	minToken = 16
)

const consoleHelp = "--console serves a page that shows the same and follows it. On loopback it is open to all who\n" +
	"can connect; elsewhere it needs --console-cert and --console-key, and one of --console-token-file,\n" +
	"--console-client-ca and --console-etcd-users. It only reads, unless --console-writes is given."

// consoleFlags are the flags of a page.
type consoleFlags struct {
	addr                string
	cert, key, clientCA string
	tokenFile           string
	etcdUsers           bool
	writes              bool
	idleTimeout         time.Duration

	logIn func(ctx context.Context, user, password string) (*clientv3.Client, error)
}

func (f *consoleFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.addr, "console", "", "address of the page, such as 127.0.0.1:2382")
	flags.BoolVar(&f.writes, "console-writes", false, "let the page drain endpoints, set weights and service configs")
	flags.StringVar(&f.cert, "console-cert", "", "file of the page's certificate")
	flags.StringVar(&f.key, "console-key", "", "file of the page's key")
	flags.StringVar(&f.clientCA, "console-client-ca", "", "file of the CA that signs browsers' certificates, which they then need")
	flags.StringVar(&f.tokenFile, "console-token-file", "", "file of the token that lets in")
	markFiles(flags, "console-cert", "console-key", "console-client-ca", "console-token-file")
	flags.BoolVar(&f.etcdUsers, "console-etcd-users", false, "let in etcd's users, each with the user's own rights")
	flags.DurationVar(&f.idleTimeout, "console-idle-timeout", 30*time.Minute, "log out who has loaded no page for this long")
}

// validate checks what needs no file.
func (f *consoleFlags) validate() error {
	ways := 0
	for _, given := range []bool{f.tokenFile != "", f.clientCA != "", f.etcdUsers} {
		if given {
			ways++
		}
	}
	switch {
	case f.addr == "" && (ways > 0 || f.writes || f.cert != "" || f.key != ""):
		return fail(exitUsage, "the flags that begin with --console- need --console ADDR")
	case f.addr == "":
		return nil
	case (f.cert == "") != (f.key == ""):
		return fail(exitUsage, "--console-cert and --console-key go together; give both")
	case f.clientCA != "" && f.cert == "":
		return fail(exitUsage, "--console-client-ca needs --console-cert and --console-key: browsers show certificates over TLS only")
	case ways > 1:
		return fail(exitUsage, "--console-token-file, --console-client-ca and --console-etcd-users exclude each other; give one")
	case f.idleTimeout < time.Second:
		return fail(exitUsage, "--console-idle-timeout %v: must be at least 1s", f.idleTimeout)
	}
	tcp, err := net.ResolveTCPAddr("tcp", f.addr)
	switch {
	case err != nil:
		return fail(exitUsage, "--console %s: %v; write HOST:PORT", f.addr, err)
	case tcp.IP.IsLoopback():
		return nil
	case f.cert == "":
		return fail(exitUsage, "--console %s: others than loopback are served over TLS: give --console-cert and --console-key, or listen at 127.0.0.1", f.addr)
	case ways == 0:
		return fail(exitUsage, "--console %s: others than loopback must show who they are: give --console-token-file, --console-client-ca or --console-etcd-users, or listen at 127.0.0.1", f.addr)
	}
	return nil
}

// consoleServer is the HTTP server of the page. The nil consoleServer serves nothing.
type consoleServer struct {
	lis     net.Listener
	http    *http.Server
	console *console.Console
	secure  bool
	files   []refresher
}

// newConsoleServer reads the files and listens.
func newConsoleServer(f consoleFlags, directory *rollcall.Directory, opts console.Options) (*consoleServer, error) {
	if f.addr == "" {
		return nil, nil
	}
	s := &consoleServer{secure: f.cert != "", http: &http.Server{ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(opts.Logger.Handler(), slog.LevelDebug)}}
	if s.secure {
		files, err := newTLSFiles("--console", f.cert, f.key, f.clientCA)
		if err != nil {
			return nil, fail(exitUsage, "%v", err)
		}
		s.files = append(s.files, files)
		s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cfg := files.get().Clone()
			cfg.NextProtos = []string{"h2", "http/1.1"}
			return cfg, nil
		}}
	}
	opts.Writes, opts.IdleTimeout, opts.Access.Certificates = f.writes, f.idleTimeout, f.clientCA != ""
	if f.etcdUsers {
		opts.Access.LogIn = f.logIn
	}
	if f.tokenFile != "" {
		token, err := newFileValue("--console-token-file", parseToken, f.tokenFile)
		if err != nil {
			return nil, fail(exitUsage, "%v", err)
		}
		s.files = append(s.files, token)
		opts.Access.Token = func() string { return *token.get() }
	}
	lis, err := listenTCP("--console", f.addr)
	if err != nil {
		return nil, err
	}
	s.lis = netutil.LimitListener(lis, maxConsoleConnections)
	if s.console, err = console.New(directory, opts); err != nil {
		_ = lis.Close()
		return nil, err
	}
	s.http.Handler = guard(f.addr, s.console)
	return s, nil
}

// parseToken takes the content of a token's file.
func parseToken(contents [][]byte) (*string, error) {
	token := string(bytes.TrimSpace(contents[0]))
	if len(token) < minToken {
		return nil, fmt.Errorf("the token has %d characters, want at least %d; to make one: openssl rand -hex 32", len(token), minToken)
	}
	return &token, nil
}

// watched returns the files that are read again when they change.
func (s *consoleServer) watched() []refresher {
	if s == nil {
		return nil
	}
	return s.files
}

func (s *consoleServer) url() string {
	if s.secure {
		return "https://" + s.lis.Addr().String()
	}
	return "http://" + s.lis.Addr().String()
}

// where returns what a line about addresses says of it.
func (s *consoleServer) where() string {
	if s == nil {
		return ""
	}
	return "console at " + s.url() + "; "
}

// serve returns nil after close.
func (s *consoleServer) serve() (err error) {
	switch {
	case s == nil:
		return nil
	case s.secure:
		err = s.http.ServeTLS(s.lis, "", "")
	default:
		err = s.http.Serve(s.lis)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// close ends all pages.
func (s *consoleServer) close() {
	if s != nil {
		_ = s.http.Close()
		_ = s.lis.Close()
		s.console.Close()
	}
}
