// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// newTLSFiles returns a server's TLS configuration from PEM files, which the flags that begin with
// a prefix name. Without a client CA, clients need no certificate.
func newTLSFiles(prefix, cert, key, clientCA string) (*fileValue[tls.Config], error) {
	if clientCA == "" {
		return newFileValue(prefix+"-cert and "+prefix+"-key", parseTLS, cert, key)
	}
	return newFileValue(prefix+"-cert, "+prefix+"-key and "+prefix+"-client-ca", parseTLS, cert, key, clientCA)
}

// parseTLS takes a certificate, its key and perhaps clients' CAs.
func parseTLS(contents [][]byte) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		// A client that resumed a session would not be asked for a certificate of the CA as it
		// is now.
		SessionTicketsDisabled: true,
	}
	if len(contents) > 2 {
		cfg.ClientCAs, cfg.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !cfg.ClientCAs.AppendCertsFromPEM(contents[2]) {
			return nil, errors.New("no PEM certificate in the file of the CA")
		}
	}
	return cfg, nil
}

// serverCredentials use TLS, but for unix sockets.
type serverCredentials struct {
	credentials.TransportCredentials
	plain credentials.TransportCredentials
}

// newServerCredentials returns credentials that follow the files.
func newServerCredentials(files *fileValue[tls.Config]) credentials.TransportCredentials {
	secure := credentials.NewTLS(&tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return files.get(), nil },
	})
	return &serverCredentials{secure, insecure.NewCredentials()}
}

func (c *serverCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if conn.LocalAddr().Network() == "unix" {
		return c.plain.ServerHandshake(conn)
	}
	return c.TransportCredentials.ServerHandshake(conn)
}
