// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
)

// client returns a client of the cluster that the flags name. It connects when used.
func (a *app) client() (*clientv3.Client, error) {
	cfg := rollcall.ClientConfig(a.endpoints...)
	cfg.DialTimeout = a.dialTimeout
	cfg.Username, cfg.Password = a.user, a.password
	tlsConfig, err := a.tls()
	if err != nil {
		return nil, err
	}
	cfg.TLS = tlsConfig
	client, err := rollcall.NewClient(cfg)
	if err != nil {
		return nil, fail(exitUsage, "--endpoints %s: %v", strings.Join(a.endpoints, ","), err)
	}
	return client, nil
}

func (a *app) tls() (*tls.Config, error) {
	if a.cacert == "" && a.cert == "" && a.key == "" {
		for _, endpoint := range a.endpoints {
			if strings.HasPrefix(endpoint, "https://") {
				return &tls.Config{MinVersion: tls.VersionTLS12}, nil
			}
		}
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.cacert != "" {
		pem, err := os.ReadFile(a.cacert)
		if err != nil {
			return nil, fail(exitUsage, "--cacert: %v", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fail(exitUsage, "--cacert %s: it holds no PEM certificate", a.cacert)
		}
	}
	if (a.cert == "") != (a.key == "") {
		return nil, fail(exitUsage, "--cert and --key go together")
	}
	if a.cert != "" {
		pair, err := tls.LoadX509KeyPair(a.cert, a.key)
		if err != nil {
			return nil, fail(exitUsage, "--cert and --key: %v", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// talk runs one exchange with etcd, all of it within the dial time-out.
func (a *app) talk(ctx context.Context, exchange func(context.Context, *clientv3.Client) error) error {
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := connect(ctx, client); err != nil {
		return err
	}
	return exchange(ctx, client)
}

// connect waits until the client has a connection and fails as soon as every endpoint
// has failed, with the connection's own error: etcd's client would wait for its context
// and say no more than that it ended.
func connect(ctx context.Context, client *clientv3.Client) error {
	conn := client.ActiveConnection()
	for {
		conn.Connect()
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure:
			if err := connectionError(ctx, conn); err != nil {
				return err
			}
		}
		if !conn.WaitForStateChange(ctx, state) {
			if cause := context.Cause(ctx); isSignal(cause) {
				return cause
			}
			return fmt.Errorf("%w: still connecting", rollcall.ErrNoAnswer)
		}
	}
}

// connectionError asks for the error that a connection failed with: a call that does
// not wait for the connection answers with it. Any other answer means there is one.
func connectionError(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}, Serializable: true, CountOnly: true},
		grpc.WaitForReady(false))
	if status.Code(err) == codes.Unavailable {
		return err
	}
	return nil
}
