// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// ClientConfig returns a configuration of etcd's client for the given endpoints that
// notices and mends a broken way to etcd in seconds: a ping after 10 s without a
// message, which must be answered in 3 s (a server takes one ping in 5 s at most, and
// none while nothing is under way); reconnecting after 0.1 to 1 s; 3 s for a connection
// to come up. etcd's own client waits up to 120 s and never pings. It logs nothing.
func ClientConfig(endpoints ...string) clientv3.Config {
	return clientv3.Config{
		Endpoints:            endpoints,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 3 * time.Second,
		})},
	}
}

// NewClient is clientv3.New without its wait: with a user name too it returns at once
// and authenticates when it is first used, so that a process starts while etcd is down.
// Calls that need a new token at the same time share one login.
func NewClient(cfg clientv3.Config) (*clientv3.Client, error) {
	var made atomic.Bool
	var logins sharedLogin
	intercept := func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
		invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		answer, ok := reply.(*pb.AuthenticateResponse)
		switch {
		case !ok:
			return invoke(ctx, method, req, reply, conn, opts...)
		case !made.Load():
			// clientv3.New asks for a token and fails when there is none to be had. An empty
			// one makes it go on; the first request that is refused for it asks again.
			return nil
		}
		return logins.do(ctx, answer, func() error { return invoke(ctx, method, req, reply, conn, opts...) })
	}
	cfg.DialOptions = append(cfg.DialOptions[:len(cfg.DialOptions):len(cfg.DialOptions)], grpc.WithChainUnaryInterceptor(intercept))
	client, err := clientv3.New(cfg)
	made.Store(true)
	return client, err
}

// sharedLogin has concurrent logins of one client wait for the first of them.
type sharedLogin struct {
	mu    sync.Mutex
	under *login // the one under way, nil where there is none
}

type login struct {
	done  chan struct{}
	token string
	err   error
}

// do logs in, or takes the outcome of the login that is under way, unless that one was only
// given up by its own caller.
func (s *sharedLogin) do(ctx context.Context, reply *pb.AuthenticateResponse, authenticate func() error) error {
	for {
		s.mu.Lock()
		other := s.under
		if other == nil {
			break
		}
		s.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
		if other.err == nil || status.Code(other.err) != codes.Canceled && status.Code(other.err) != codes.DeadlineExceeded {
			reply.Token = other.token
			return other.err
		}
	}
	own := &login{done: make(chan struct{})}
	s.under = own
	s.mu.Unlock()
	own.err = authenticate()
	own.token = reply.Token
	s.mu.Lock()
	s.under = nil
	s.mu.Unlock()
	close(own.done)
	return own.err
}

// TLSFiles are the PEM files of a client of etcd. They are read anew for each connection,
// so that certificates rotated on disk are taken up without a restart.
type TLSFiles struct {
	CA   string // certificates that sign etcd's; default: the system's
	Cert string // the client's certificate, if etcd wants one; goes with Key
	Key  string
}

// Credentials returns credentials for grpc.WithTransportCredentials, which belong into
// the DialOptions of a clientv3.Config: every connection is made with TLS then, whatever
// the scheme of its endpoint. It fails with an *InputError where the files cannot be read
// now. Where that happens later, in the middle of a rotation, what was last read holds.
func (f TLSFiles) Credentials() (credentials.TransportCredentials, error) {
	cfg, err := f.load()
	if err != nil {
		return nil, err
	}
	return &fileCredentials{files: f, last: cfg}, nil
}

// load reads the files.
func (f TLSFiles) load() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		bundle, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, inputError("CA file", f.CA, "%v", err)
		}
		if cfg.RootCAs, err = certPool(bundle); err != nil {
			return nil, inputError("CA file", f.CA, "%v", err)
		}
	}
	if f.Cert != "" || f.Key != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, inputError("certificate and key", f.Cert+" and "+f.Key, "%v", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// certPool returns the certificates of a PEM file. Unlike x509.CertPool's own method it
// refuses a file with an incomplete block, such as one that is being written.
func certPool(data []byte) (*x509.CertPool, error) {
	pool, blocks, certificates := x509.NewCertPool(), 0, 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if blocks++; block.Type != "CERTIFICATE" {
			continue
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil { // bundles have some that Go cannot read
			pool.AddCert(cert)
			certificates++
		}
	}
	if begun := bytes.Count(data, []byte("-----B")); begun > blocks {
		return nil, fmt.Errorf("%d of its %d PEM blocks are incomplete", begun-blocks, begun)
	}
	if certificates == 0 {
		return nil, errors.New("it holds no PEM certificate")
	}
	return pool, nil
}

// fileCredentials are TLS credentials made anew for each handshake.
type fileCredentials struct {
	files      TLSFiles
	serverName string // set before use, by OverrideServerName

	mu   sync.Mutex
	last *tls.Config // what was last read
}

// config returns what the files hold, else what they last held and why.
func (c *fileCredentials) config() (*tls.Config, error) {
	cfg, err := c.files.load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.last = cfg
	}
	cfg = c.last.Clone()
	cfg.ServerName = c.serverName
	return cfg, err
}

func (c *fileCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cfg, loadErr := c.config()
	secured, info, err := credentials.NewTLS(cfg).ClientHandshake(ctx, authority, conn)
	if err != nil && loadErr != nil {
		err = fmt.Errorf("%w (with what the files held before: %v)", err, loadErr)
	}
	return secured, info, err
}

func (c *fileCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("%T is for clients only", c)
}

func (c *fileCredentials) Info() credentials.ProtocolInfo { return credentials.NewTLS(nil).Info() }

func (c *fileCredentials) Clone() credentials.TransportCredentials {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &fileCredentials{files: c.files, serverName: c.serverName, last: c.last}
}

func (c *fileCredentials) OverrideServerName(name string) error {
	c.serverName = name
	return nil
}
