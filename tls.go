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

	"google.golang.org/grpc/credentials"
)

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
