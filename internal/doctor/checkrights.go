// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// Certificates that end sooner than soon are warned of, and those that end sooner than now are errors.
const (
	certificateSoon = 30 * 24 * time.Hour
	certificateNow  = 3 * 24 * time.Hour
)

const rootRole = "root"

var rightsChecks = []check{
	{"rights-missing", Warning, "What may not be read was not looked at: faults there go unseen.",
		"Grant the user what is missing, run doctor as another one, or name the services that this one may read.", missingRights},
	{"rights-root", Note, "Whoever gets hold of this password can change everything in etcd; no command but roles --apply needs it.",
		"Make a user with the rights that are needed, and use that one.", rootInUse},
	{"rights-off", Warning, "Users and their roles exist, but everybody who reaches etcd may read and write all of it: somebody has turned authentication off, or never on.",
		"Turn authentication on, once all clients have users; else delete the users.", authOff},
	{"rights-plaintext", Warning, "The password crosses the network for everybody on the way to read.",
		"Give etcd certificates, and use https:// endpoints with --cacert.", plaintextPassword},
	{"certificate-client", Warning, "Once it has ended etcd refuses every connection of its users, new ones first: an outage that no restart mends.",
		"Issue a new certificate to the same files; Rollcall reads them for each connection.", clientCertificate},
	{"certificate-server", Warning, "Once it has ended no client connects to the member any more.",
		"Issue a new certificate to the same files; etcd reads them for each connection.", serverCertificates},
}

func missingRights(f *Facts) []Finding {
	if len(f.Denied) == 0 {
		return nil
	}
	user, permit := f.Client.Permit(f.Asked)
	finding := Finding{What: fmt.Sprintf("user %q may not read: %s", user, strings.Join(f.Denied, "; "))}
	switch err := f.Cluster.Err; {
	case user == "":
		finding.What = "without a user nobody may read: " + strings.Join(f.Denied, "; ")
		finding.Fix = "Run doctor with --user, or ROLLCALL_USER."
	case err != nil && !errors.Is(err, rpctypes.ErrPermissionDenied):
		finding.Fix = "See --user and --password, or --auth-jwt-token: etcd does not know this user."
	case f.DeniedKeys:
		finding.Commands = [][]string{permit}
	default:
		finding.Fix = "No role but root grants that in this version of etcd: upgrade etcd, or run doctor as root."
	}
	return []Finding{finding}
}

func rootInUse(f *Facts) []Finding {
	if !f.Access.Enabled || !slices.Contains(f.Access.Roles, rootRole) {
		return nil
	}
	return []Finding{{What: fmt.Sprintf("user %q has the role root", f.Access.User), Commands: calls("rollcall roles --help")}}
}

func authOff(f *Facts) []Finding {
	if f.Access.Enabled || len(f.Access.Users) == 0 {
		return nil
	}
	commands := calls("etcdctl auth enable")
	if !slices.Contains(f.Access.Users, rootRole) { // the user of that name, which etcd demands
		commands = append(calls("etcdctl user add root"), commands...)
	}
	return []Finding{{What: fmt.Sprintf("etcd has %s (%s), but authentication is off", plural.Count(len(f.Access.Users), "user", "users"), named(f.Access.Users)),
		Commands: commands}}
}

func plaintextPassword(f *Facts) []Finding {
	var far []string
	for _, a := range f.Cluster.Asked {
		if a.Certificate == nil && a.Err == nil && !isLoopback(cluster.HostOf(a.Endpoint)) {
			far = append(far, a.Endpoint)
		}
	}
	if f.Client.User == "" || len(far) == 0 {
		return nil
	}
	return []Finding{{What: fmt.Sprintf("the password of user %q is sent to %s in plaintext", f.Client.User, named(far))}}
}

func clientCertificate(f *Facts) []Finding {
	return certificate(f, f.Client.Certificate, "the client's certificate")
}

func serverCertificates(f *Facts) (found []Finding) {
	seen := make(map[string]bool) // members
	for _, a := range f.Cluster.Asked {
		if a.Certificate == nil || a.Member != "" && seen[a.Member] {
			continue
		}
		seen[a.Member] = true
		for _, finding := range certificate(f, a.Certificate, fmt.Sprintf("the certificate of etcd at %s", a.Endpoint)) {
			finding.Member = a.Endpoint
			found = append(found, finding)
		}
	}
	return found
}

func certificate(f *Facts, cert *x509.Certificate, whose string) []Finding {
	if cert == nil {
		return nil
	}
	left := cert.NotAfter.Sub(f.Now)
	ends := "ends in " + days(left)
	severity := Warning
	switch {
	case left > certificateSoon:
		return nil
	case left <= 0:
		ends, severity = "ended "+days(-left)+" ago", Error
	case left <= certificateNow:
		severity = Error
	}
	return []Finding{{Severity: severity, What: fmt.Sprintf("%s (%s) %s, on %s", whose, cert.Subject, ends, cert.NotAfter.UTC().Format(time.RFC3339))}}
}

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return plural.Count(int(d.Hours()), "hour", "hours")
	}
	return plural.Count(int(d.Hours()/24), "day", "days")
}
