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

// ClientConfig returns a configuration of etcd's client that detects and replaces a broken
// connection within seconds. It pings after 10 s without a message and waits 3 s for the
// answer (an etcd server accepts a ping every 5 s at most, and none without an active
// call), reconnects after 0.1 to 1 s, and gives a connection attempt 3 s. By default,
// etcd's client waits up to 120 s and never pings. The client logs nothing.
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

// NewClient is like clientv3.New, but never waits for etcd: with a user name, it logs in
// when it is first used, so that a process can start while etcd is down. Concurrent calls
// that need a new token share one login.
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
			// clientv3.New asks for a token and fails without one. Etcd refuses this one, and
			// then the client logs in. Without any, etcd would go by the client's certificate.
			answer.Token = noToken
			return nil
		}
		return logins.do(ctx, answer, func() error { return invoke(ctx, method, req, reply, conn, opts...) })
	}
	cfg.DialOptions = append(cfg.DialOptions[:len(cfg.DialOptions):len(cfg.DialOptions)], grpc.WithChainUnaryInterceptor(intercept))
	client, err := clientv3.New(cfg)
	made.Store(true)
	return client, err
}

// noToken is a token that no etcd has given.
const noToken = "none"

// sharedLogin makes concurrent logins of a client share the first of them.
type sharedLogin struct {
	mu      sync.Mutex
	current *login // the one under way, or nil
}

type login struct {
	done  chan struct{}
	token string
	err   error
}

// do logs in, or waits for the login under way and returns its result. If the caller of that
// login gave up, do tries again.
func (s *sharedLogin) do(ctx context.Context, reply *pb.AuthenticateResponse, authenticate func() error) error {
	for {
		s.mu.Lock()
		other := s.current
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
	s.current = own
	s.mu.Unlock()
	own.err = authenticate()
	own.token = reply.Token
	s.mu.Lock()
	s.current = nil
	s.mu.Unlock()
	close(own.done)
	return own.err
}

// TLSFiles are the PEM files of an etcd client. They are read for each connection, so that
// rotated certificates need no restart.
type TLSFiles struct {
	CA   string // the CAs that sign etcd's certificate; default: the system's
	Cert string // the client's certificate, if etcd requires one; needs Key
	Key  string
}

// Credentials returns credentials for grpc.WithTransportCredentials, to be used in the
// DialOptions of a clientv3.Config. Every connection then uses TLS, whatever the scheme of
// the endpoint. If the files cannot be read, Credentials returns an *InputError. If they
// cannot be read later, for instance during a rotation, the last content is used.
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

// certPool returns the certificates of a PEM file. Unlike x509.CertPool.AppendCertsFromPEM
// it fails for an incomplete block: the file may be in the middle of being written.
func certPool(data []byte) (*x509.CertPool, error) {
	pool, blocks, certificates := x509.NewCertPool(), 0, 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if blocks++; block.Type != "CERTIFICATE" {
			continue
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil { // bundles may have certificates that Go cannot parse
			pool.AddCert(cert)
			certificates++
		}
	}
	if begun := bytes.Count(data, []byte("-----B")); begun > blocks {
		return nil, fmt.Errorf("%d of its %d PEM blocks are incomplete", begun-blocks, begun)
	}
	if certificates == 0 {
		return nil, errors.New("no PEM certificate in it")
	}
	return pool, nil
}

// fileCredentials are TLS credentials that read their files for each handshake.
type fileCredentials struct {
	files      TLSFiles
	serverName string // set before use, by OverrideServerName

	mu   sync.Mutex
	last *tls.Config // as last read
}

// config returns the content of the files or, with the error, the last content.
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
		err = fmt.Errorf("%w (with the previous content of the files: %v)", err, loadErr)
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
