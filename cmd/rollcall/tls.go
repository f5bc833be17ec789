// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"

	"github.com/rollcall-grpc/rollcall"
)

// credentials returns the TLS that a file, an https endpoint or a flag asks for, as for etcdctl; nil if
// none does.
func (a *app) credentials() (credentials.TransportCredentials, error) {
	https := slices.ContainsFunc(a.endpoints, func(e string) bool { return strings.HasPrefix(e, "https://") })
	domain := "" // that etcd's certificate must be for
	if a.discoverySRV != "" && !a.insecureDiscovery {
		domain = a.discoverySRV
	}
	if a.cacert == "" && a.cert == "" && domain == "" && a.insecureTransport && !a.skipVerify && !https {
		return nil, nil
	}
	files := rollcall.TLSFiles{CA: a.cacert, Cert: a.cert, Key: a.key}
	creds, err := files.Credentials()
	switch {
	case err != nil:
		return nil, fail(exitUsage, "--cacert, --cert and --key: %v", err)
	case a.skipVerify:
		return unverified(files), nil
	case domain != "":
		return namedCredentials{creds, domain}, nil
	}
	return creds, nil
}

// unverified returns credentials that accept whoever answers. They read the client's certificate for each
// connection, as rollcall.TLSFiles do.
func unverified(files rollcall.TLSFiles) credentials.TransportCredentials {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}
	if files.Cert != "" {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
			return &pair, err
		}
	}
	return credentials.NewTLS(cfg)
}

// namedCredentials check that the server's certificate is for a name, wherever it is dialled.
type namedCredentials struct {
	credentials.TransportCredentials
	name string
}

func (c namedCredentials) ClientHandshake(ctx context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c.TransportCredentials.ClientHandshake(ctx, c.name, conn)
}

func (c namedCredentials) Clone() credentials.TransportCredentials {
	return namedCredentials{c.TransportCredentials.Clone(), c.name}
}
