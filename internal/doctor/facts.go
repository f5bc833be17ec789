// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// Facts are all that the checks look at. What is not known is the zero value, and named in Unknown.
type Facts struct {
	Now     time.Time
	Cluster *cluster.Report // as the run began
	Later   *cluster.Report // as it ended; nil if etcd did not answer at first
	HTTP    map[string]Page // what members tell over HTTP, by their id
	Access  Access
	Client  Settings

	Asked    []string              // the services that were asked for; none: all
	Services []Service             // sorted by name, if all were asked for
	Foreign  []*inventory.Instance // keys that are no endpoints, and of no service that has any
	Bare     []*inventory.Instance // endpoints whose keys name no service
	Configs  []*rollcall.ServiceConfig
	First    map[string]inventory.TTL // of all leases that keys are under, by their hexadecimal text
	Second   map[string]inventory.TTL // of those that seemed to end, a while after
	Watched  map[string]Watched       // leases that were watched for a renewal, by their hexadecimal text
	Former   map[string]string        // by key: the lease before the present one, if it has no key and is renewed
	Answers  map[string]Answer        // of servers, by address; those that were not dialled are missing
	Changed  map[string]bool          // keys that were written or deleted since they were listed, of those that were read again

	CheckConfig   func(text string) error    // reports why gRPC would refuse a service config
	UnknownFields func(text []byte) []string // returns the fields of a service config that gRPC ignores

	Unknown []string // what could not be found out, and why
	Denied  []string // the part of it that the user's rights do not allow

	DeniedKeys bool     // Denied has keys: a role can grant those
	Unread     []string // the part of it that is keys and leases, and that etcd would have told
}

// Service is a service that has endpoints or was asked for.
type Service struct {
	Name string
	Rows []*inventory.Instance // all its keys
}

// Page is what a member tells over HTTP.
type Page struct {
	Skew          time.Duration // how far its clock is ahead of ours; 0 if less than can be told
	Uptime        time.Duration
	LeaderChanges float64
	Quota         int64
}

// Access is who may do what in etcd.
type Access struct {
	Enabled bool
	Users   []string // where they may be listed
	User    string   // in use
	Roles   []string // of the user
}

// Answer is what a server made of being dialled.
type Answer struct {
	Connected bool   // TCP
	Answers   bool   // gRPC
	Health    string // as in grpc.health.v1; "" without a health service
	Error     string
}

// serves reports whether a server is well, as far as it tells.
func (a Answer) serves() bool { return a.Answers && (a.Health == "" || a.Health == healthServing) }

// Settings are those of whoever runs the doctor.
type Settings struct {
	Endpoints   []string // of etcd, as given
	DialTimeout time.Duration
	Certificate *x509.Certificate // the client's; nil for none
	User        string            // that is given; a certificate may name another
	Getenv      func(name string) string
	Variables   []Variable

	// Permit returns the user that etcd takes the client for, "" for none, and the command that permits it to
	// read what doctor does: of some services, or of all.
	Permit func(services []string) (user string, command []string)
}

// Variable is a setting that both etcdctl and Rollcall take from the environment, each by its own name. Rollcall's wins.
type Variable struct{ Etcdctl, Rollcall string }

// latency returns how long the slowest member takes to answer, the better of two times.
func (f *Facts) latency() (slowest time.Duration) {
	for _, m := range f.Cluster.Members {
		slowest = max(slowest, f.latencyOf(m))
	}
	return slowest
}

func (f *Facts) latencyOf(m cluster.Member) time.Duration {
	if later := f.later(m.ID); later != nil && later.Answers() {
		return min(m.Latency(), later.Latency())
	}
	return m.Latency()
}

// later returns a member as the run ended, nil if it was not there.
func (f *Facts) later(id string) *cluster.Member {
	if f.Later == nil {
		return nil
	}
	for i := range f.Later.Members {
		if f.Later.Members[i].ID == id {
			return &f.Later.Members[i]
		}
	}
	return nil
}

// answering returns the members that told their status.
func (f *Facts) answering() (members []cluster.Member) {
	for _, m := range f.Cluster.Members {
		if m.Answers() {
			members = append(members, m)
		}
	}
	return members
}

// led reports whether some member knows a leader.
func (f *Facts) led() bool {
	return slices.ContainsFunc(f.answering(), func(m cluster.Member) bool { return m.Led })
}

// quota returns what a member's database may take; 0 if that is not known.
func (f *Facts) quota(m cluster.Member) int64 {
	if m.DBQuota > 0 {
		return m.DBQuota
	}
	return f.HTTP[m.ID].Quota
}

// eachService calls find for every service, and collects what it returns.
func (f *Facts) eachService(find func(Service) []Finding) (all []Finding) {
	for _, s := range f.Services {
		all = append(all, find(s)...)
	}
	return all
}

// Missing returns the services that were asked for and have no key.
func (f *Facts) Missing() (names []string) {
	for _, s := range f.Services {
		if len(s.Rows) == 0 {
			names = append(names, s.Name)
		}
	}
	return names
}

// where returns the keys of a service for which met holds.
func (s Service) where(met func(*inventory.Instance) bool) (rows []*inventory.Instance) {
	for _, row := range s.Rows {
		if met(row) {
			rows = append(rows, row)
		}
	}
	return rows
}
