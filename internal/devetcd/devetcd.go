// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package devetcd runs an etcd member in this process, for demonstrations and development. It
// listens on the loopback interface only, without TLS and without users.
//
// # Concurrency
//
// A Server may be used by many goroutines. Close joins the goroutines of etcd.
package devetcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/logutil"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
)

const (
	// attempts bounds how often ports are chosen: between choosing a free port and binding
	// it, another process may take it.
	attempts = 5
	// startTimeout bounds the wait until the member has elected itself, which takes about a
	// second.
	startTimeout = 30 * time.Second
)

// Options configures a member. The zero value works.
type Options struct {
	// DataDir is the data directory. It is created, or reopened with its data. Default: a
	// temporary directory, which Close removes; nothing is synced to disk, and passwords are hashed at
	// the least cost.
	DataDir string
	// ClientAddr is the host:port that clients dial. The host must be a loopback address;
	// with port 0 a free port is chosen. Default "127.0.0.1:0".
	ClientAddr string
	// Name is the member's name. Default "rollcall-dev".
	Name string
	// LogLevel is the lowest level of etcd's messages on stderr: "debug", "info",
	// "warn", "error", "dpanic", "panic" or "fatal". Default "error".
	LogLevel string
}

// Server is a running member.
type Server struct {
	etcd     *embed.Etcd
	grpc     *grpc.Server // the one that etcd serves clients with
	logLevel zap.AtomicLevel
	endpoint string
	dataDir  string
	temp     bool

	closing  sync.Once
	closeErr error
}

// Start runs a member and returns once it answers. After an error nothing is left behind; the
// error names the address or directory that caused it. ctx bounds only the start.
func Start(ctx context.Context, opts Options) (*Server, error) {
	opts, err := opts.validate()
	if err != nil {
		return nil, err
	}
	temp := opts.DataDir == ""
	if temp {
		if opts.DataDir, err = os.MkdirTemp("", "rollcall-etcd-"); err != nil {
			return nil, fmt.Errorf("make a data directory: %w", err)
		}
	} else if err := checkUnlocked(opts.DataDir); err != nil {
		return nil, err
	}
	s, err := startRetrying(ctx, opts, temp)
	if err != nil {
		if temp {
			err = errors.Join(err, os.RemoveAll(opts.DataDir))
		}
		return nil, err
	}
	return s, nil
}

func (o Options) validate() (Options, error) {
	if o.ClientAddr == "" {
		o.ClientAddr = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(o.ClientAddr)
	if err != nil {
		return o, fmt.Errorf("client address %q: %w", o.ClientAddr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return o, fmt.Errorf("client address %q: not a loopback address; everybody who reaches a development etcd can write to it", o.ClientAddr)
	}
	if o.Name == "" {
		o.Name = "rollcall-dev"
	}
	if o.LogLevel == "" {
		o.LogLevel = "error"
	}
	if _, err := zapcore.ParseLevel(o.LogLevel); err != nil {
		return o, fmt.Errorf("log level: %w", err)
	}
	return o, nil
}

// startRetrying tries other ports while a port that it chose is in use.
func startRetrying(ctx context.Context, opts Options, temp bool) (*Server, error) {
	for attempt := 1; ; attempt++ {
		addr, err := bindable(opts.ClientAddr)
		if err != nil {
			return nil, err
		}
		peer, err := bindable("127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		cfg, level, err := config(opts, addr, peer, temp)
		if err != nil {
			return nil, err
		}
		s, err := startMember(ctx, cfg)
		if err == nil {
			s.logLevel, s.endpoint, s.dataDir, s.temp = level, addr, opts.DataDir, temp
			return s, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) || attempt == attempts {
			return nil, fmt.Errorf("start etcd on %s with data in %s: %w", addr, opts.DataDir, err)
		}
	}
}

// bindable returns addr with port 0 replaced by a free port, or an error if the address
// cannot be listened on.
func bindable(addr string) (string, error) {
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return "", fmt.Errorf("%s is in use, perhaps by another etcd: stop it or choose another address: %w", addr, err)
	}
	if err != nil {
		return "", err
	}
	defer ln.Close()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return net.JoinHostPort(host, port), err
}

// config returns the configuration of a cluster of one member. The peer address may differ
// from the one stored in a reopened data directory: a single member dials no peers.
// Changing the returned level changes what the running member logs.
func config(opts Options, client, peer string, temp bool) (*embed.Config, zap.AtomicLevel, error) {
	clientURLs := []url.URL{{Scheme: "http", Host: client}}
	peerURLs := []url.URL{{Scheme: "http", Host: peer}}
	cfg := embed.NewConfig()
	cfg.Name = opts.Name
	cfg.Dir = opts.DataDir
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = clientURLs, clientURLs
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = peerURLs, peerURLs
	cfg.InitialCluster = cfg.InitialClusterFromName(opts.Name)
	cfg.UnsafeNoFsync = temp
	if temp {
		cfg.BcryptCost = 4
	}
	cfg.EnableGRPCGateway = false

	logging := logutil.DefaultZapLoggerConfig
	level, err := zap.ParseAtomicLevel(opts.LogLevel)
	if err != nil {
		return nil, level, err
	}
	logging.Level, cfg.LogLevel = level, opts.LogLevel
	logger, err := logging.Build()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger)
	return cfg, level, err
}

// startMember returns once the member serves reads and writes.
func startMember(ctx context.Context, cfg *embed.Config) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	serving := make(chan *grpc.Server, 1)
	cfg.ServiceRegister = func(s *grpc.Server) { serving <- s } // called when the member is ready
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case s := <-serving:
		return &Server{etcd: e, grpc: s}, nil
	case err = <-e.Err():
	case <-e.Server.StopNotify():
		err = errors.New("etcd stopped before it was ready")
	case <-ctx.Done():
		err = fmt.Errorf("wait until etcd is ready: %w", ctx.Err())
	}
	e.Close()
	return nil, err
}

// Endpoint returns the host:port that clients dial.
func (s *Server) Endpoint() string { return s.endpoint }

// DataDir returns the data directory.
func (s *Server) DataDir() string { return s.dataDir }

// Err returns a channel that receives an error when the member fails, and is closed
// when it ends. Close makes it receive what the listeners report.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Close stops the member and removes a temporary data directory. Calls after the first
// return what the first did. Connections that clients still have open are closed.
func (s *Server) Close() error {
	s.closing.Do(func() {
		// etcd logs an error for each listener that it closes.
		if s.logLevel.Level() >= zapcore.WarnLevel {
			s.logLevel.SetLevel(zapcore.DPanicLevel)
		}
		// etcd would stop it gracefully, which can take 7s while a stream is open.
		s.grpc.Stop()
		s.etcd.Close()
		if s.temp {
			s.closeErr = os.RemoveAll(s.dataDir)
		}
	})
	return s.closeErr
}
