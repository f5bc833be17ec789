// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// aDay is the default validity of a certificate.
const aDay = 24 * time.Hour

// CA is a certificate authority for a test, with its files in a directory of the test.
type CA struct {
	tb   testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int // certificates issued, for unique file names
}

// Certificate is a certificate with its key on disk, for servers and clients.
type Certificate struct {
	CertFile, KeyFile string // PEM

	name  string
	hosts []string
	key   *ecdsa.PrivateKey
}

// NewCA returns a new authority, which nothing trusts yet. Two authorities differ only in their
// keys.
func NewCA(tb testing.TB) *CA {
	tb.Helper()
	ca := &CA{tb: tb, dir: tb.TempDir(), key: newKey(tb)}
	template := certTemplate("etcdtest CA", aDay)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der := ca.sign(template, template, &ca.key.PublicKey)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatalf("etcdtest: CA: %v", err)
	}
	ca.cert = cert
	ca.write(ca.File(), "CERTIFICATE", der)
	return ca
}

// File returns the path of the authority's certificate.
func (ca *CA) File() string { return filepath.Join(ca.dir, "ca.pem") }

// Issue writes a new key and a certificate of the common name, for 127.0.0.1, ::1,
// localhost and the given hosts. It expires after valid; with a negative one it is expired.
func (ca *CA) Issue(name string, valid time.Duration, hosts ...string) *Certificate {
	ca.tb.Helper()
	ca.n++
	base := filepath.Join(ca.dir, strconv.Itoa(ca.n)+"-"+name)
	c := &Certificate{CertFile: base + ".pem", KeyFile: base + "-key.pem", name: name, hosts: hosts, key: newKey(ca.tb)}
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		ca.tb.Fatalf("etcdtest: key of %s: %v", name, err)
	}
	ca.write(c.KeyFile, "PRIVATE KEY", der)
	ca.Reissue(c, valid)
	return c
}

// Reissue replaces c on disk by a certificate of this authority, which may be another one than
// before. The key stays, and the file is renamed into place, so that the two files always match.
func (ca *CA) Reissue(c *Certificate, valid time.Duration) {
	ca.tb.Helper()
	template := certTemplate(c.name, valid)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames = []string{"localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for _, host := range c.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	ca.write(c.CertFile, "CERTIFICATE", ca.sign(template, ca.cert, &c.key.PublicKey))
}

// ClientConfig returns a configuration for clients that trust this authority. They present c, as it
// is on disk at the time of the handshake; nil for none.
func (ca *CA) ClientConfig(c *Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	cfg := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if c != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
			return &pair, err
		}
	}
	return cfg
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("etcdtest: key: %v", err)
	}
	return key
}

// certTemplate is valid from two days ago, so that a certificate can be expired.
func certTemplate(name string, valid time.Duration) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-2 * aDay),
		NotAfter:     now.Add(valid),
	}
}

func (ca *CA) sign(template, parent *x509.Certificate, key *ecdsa.PublicKey) []byte {
	ca.tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, ca.key)
	if err != nil {
		ca.tb.Fatalf("etcdtest: certificate of %s: %v", template.Subject.CommonName, err)
	}
	return der
}

func (ca *CA) write(path, kind string, der []byte) {
	ca.tb.Helper()
	err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		ca.tb.Fatalf("etcdtest: %v", err)
	}
}
