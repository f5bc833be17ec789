// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

const (
	// listing is how much longer than other questions lists and lookups of many leases may take.
	listing = 5
	// keysAtOnce is how many keys are read again in a transaction: half of what etcd takes by default.
	keysAtOnce = 64
)

// Options are what Gather needs. Client, Directory, Timeout, CheckConfig and UnknownFields are required.
type Options struct {
	Client      *clientv3.Client
	Directory   *rollcall.Directory
	Credentials credentials.TransportCredentials // of etcd; nil: plaintext
	Settings    Settings
	Services    []string      // none: all
	Timeout     time.Duration // of each question to etcd

	CheckConfig   func(text string) error                            // as Facts.CheckConfig
	UnknownFields func(text []byte) []string                         // as Facts.UnknownFields
	Dial          func(ctx context.Context, addrs []string) []Answer // one answer an address; nil: servers are not dialled
	MaxDials      int                                                // of how many servers at most, evenly chosen; 0: all
	Progress      func(step string)                                  // told what is being done; nil: nobody
}

// Gather asks etcd, its members and the servers. What it could not find out is in the facts' Unknown. It
// ends early where etcd does not answer: Facts.Cluster.Err then has the reason.
func Gather(ctx context.Context, opts Options) *Facts {
	g := &gathering{opts: opts, Facts: &Facts{Now: time.Now(), Client: opts.Settings, CheckConfig: opts.CheckConfig, UnknownFields: opts.UnknownFields,
		Asked: opts.Services, Changed: make(map[string]bool)}}
	g.step("asking the members of etcd")
	g.Cluster = cluster.Inspect(ctx, g.opts.Client, g.opts.Timeout)
	g.missing()
	if g.Cluster.Err != nil {
		return g.Facts
	}
	g.step("asking members over HTTP")
	g.pages(ctx)
	if !g.led() {
		g.Unknown = append(g.Unknown, "keys, leases and users: etcd has no leader")
		return g.Facts
	}
	for _, step := range []struct {
		name string
		take func(context.Context)
	}{
		{"reading users and roles", g.access}, {"listing keys", g.list}, {"looking up leases", g.leases}, {"dialling servers", g.dial},
		{"reading the past of keys", g.formerLeases}, {"waiting for renewals of leases", g.awaitRenewals},
	} {
		if ctx.Err() == nil {
			g.step(step.name)
			step.take(ctx)
		}
	}
	g.step("asking the members of etcd again")
	g.Later = cluster.Inspect(ctx, g.opts.Client, g.opts.Timeout)
	return g.Facts
}

// gathering is how far the facts have come.
type gathering struct {
	*Facts
	opts    Options
	emptied map[string]clientv3.LeaseID // by key: the lease before the present one, if it is alive and has no key
}

func (g *gathering) step(name string) {
	if g.opts.Progress != nil {
		g.opts.Progress(name)
	}
}

// missKeys notes why keys or leases could not be read, if they could not.
func (g *gathering) missKeys(what string, err error) {
	if err == nil {
		return
	}
	g.miss(what, err)
	if cluster.Refused(err) {
		g.DeniedKeys = true
	} else {
		g.Unread = append(g.Unread, g.Unknown[len(g.Unknown)-1])
	}
}

// miss notes what could not be found out.
func (g *gathering) miss(what string, err error) {
	g.note(what+": "+strings.TrimPrefix(printable.Error(err), "etcdserver: "), cluster.Refused(err))
}

func (g *gathering) note(unknown string, refused bool) {
	if refused {
		g.Denied = append(g.Denied, unknown)
	}
	g.Unknown = append(g.Unknown, unknown)
}

// missing notes what the members have not told, but for what no check asks or what others tell.
func (g *gathering) missing() {
	for _, unknown := range g.Cluster.Unknown {
		if what, _, _ := strings.Cut(unknown, ":"); !slices.Contains([]string{"keys", "leases", "quota"}, what) {
			g.note(unknown, slices.Contains(g.Cluster.Refused, unknown))
		}
	}
	for _, m := range g.Cluster.Members {
		if m.Refused {
			g.note(fmt.Sprintf("the status of member %q: %s", nameOf(m), m.Error), true)
		}
	}
}

// within calls ask with a deadline.
func (g *gathering) within(ctx context.Context, timeout time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return ask(ctx)
}

// access finds out whether etcd has authentication, and what the user is. Only etcd before 3.5 does not tell:
// there it has where a user is given.
func (g *gathering) access(ctx context.Context) {
	client, user := g.opts.Client, g.Client.User
	err := g.within(ctx, g.opts.Timeout, func(ctx context.Context) error {
		resp, err := client.AuthStatus(ctx)
		if err == nil {
			g.Access.Enabled = resp.Enabled
		}
		return err
	})
	switch {
	case status.Code(err) == codes.Unimplemented:
		g.Access.Enabled = user != ""
	case cluster.Refused(err):
		g.Access.Enabled = true // before 3.7, root alone may ask
	case err != nil:
		g.miss("authentication", err)
		return
	}
	if err := g.within(ctx, g.opts.Timeout, func(ctx context.Context) error {
		if !g.Access.Enabled {
			resp, err := client.UserList(ctx)
			if err == nil {
				g.Access.Users = resp.Users
			}
			return err
		}
		if user == "" {
			return nil
		}
		resp, err := client.UserGet(ctx, user)
		if err == nil {
			g.Access.User, g.Access.Roles = user, resp.Roles
		}
		return err
	}); err != nil {
		g.miss("users", err)
	}
}

// list lists the keys that are asked for.
func (g *gathering) list(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, listing*g.opts.Timeout)
	defer cancel()
	if len(g.Asked) == 0 {
		g.missKeys("keys", g.listAll(ctx))
	}
	for _, service := range g.Asked {
		g.missKeys(fmt.Sprintf("keys of %q", service), g.listService(ctx, service))
	}
}

func (g *gathering) listService(ctx context.Context, service string) error {
	snap, err := g.opts.Directory.List(ctx, service)
	if err != nil {
		return err
	}
	s := Service{Name: service}
	for _, row := range inventory.Instances(snap, inventory.Under(service)) {
		s.Rows = append(s.Rows, &row)
	}
	g.Services = append(g.Services, s)
	config, err := g.opts.Directory.ServiceConfig(ctx, service)
	if err == nil && config.JSON != nil {
		g.Configs = append(g.Configs, config)
	}
	return err
}

func (g *gathering) listAll(ctx context.Context) error {
	snap, err := g.opts.Directory.ListPrefix(ctx, "")
	if err != nil {
		return err
	}
	g.Configs = snap.ServiceConfigs()
	g.sort(inventory.Instances(snap, rollcall.SplitKey))
	return nil
}

// sort divides the keys of a whole store among services. Keys that are no endpoints are faults of a service that has
// other endpoints; else they may be anybody's.
func (g *gathering) sort(rows []inventory.Instance) {
	services := make(map[string]*Service)
	for i := range rows {
		row := &rows[i]
		switch s := services[row.Service]; {
		case row.Service == "" && row.Status != inventory.Invalid:
			g.Bare = append(g.Bare, row)
		case s == nil:
			services[row.Service] = &Service{row.Service, []*inventory.Instance{row}}
		default:
			s.Rows = append(s.Rows, row)
		}
	}
	for _, s := range services {
		if invalid := s.where(is(inventory.Invalid)); len(invalid) == len(s.Rows) {
			g.Foreign = append(g.Foreign, invalid...)
			continue
		}
		g.Services = append(g.Services, *s)
	}
	slices.SortFunc(g.Services, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(g.Foreign, func(a, b *inventory.Instance) int { return strings.Compare(a.Key, b.Key) })
}

// dial dials the servers that clients call, or as many as it may.
func (g *gathering) dial(ctx context.Context) {
	if g.opts.Dial == nil {
		return
	}
	var addrs []string
	for _, s := range g.Services {
		for _, row := range s.where(is(inventory.Serving)) {
			addrs = append(addrs, row.Addr)
		}
	}
	slices.Sort(addrs)
	addrs = slices.Compact(addrs)
	if all := len(addrs); g.opts.MaxDials > 0 && all > g.opts.MaxDials {
		some := make([]string, g.opts.MaxDials)
		for i := range some {
			some[i] = addrs[i*all/g.opts.MaxDials]
		}
		addrs = some
		g.Unknown = append(g.Unknown, fmt.Sprintf("whether %d of %d servers answer: they were not dialled; see --max-dials", all-len(some), all))
	}
	g.Answers = make(map[string]Answer, len(addrs))
	for i, answer := range g.opts.Dial(ctx, addrs) {
		g.Answers[addrs[i]] = answer
	}
}

// readAgain reads the keys of endpoints that seem to be at fault once more: a server that has left, drained or moved
// since they were listed is not.
func (g *gathering) readAgain(ctx context.Context, suspects []inventory.Instance) {
	ctx, cancel := context.WithTimeout(ctx, listing*g.opts.Timeout)
	defer cancel()
	for rows := range slices.Chunk(suspects, keysAtOnce) {
		ops := make([]clientv3.Op, len(rows))
		for i, row := range rows {
			ops[i] = clientv3.OpGet(row.Key, clientv3.WithKeysOnly())
		}
		resp, err := g.opts.Client.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			g.missKeys("keys, read again", err)
			return
		}
		for i, row := range rows {
			if kvs := resp.Responses[i].GetResponseRange().Kvs; len(kvs) == 0 || kvs[0].ModRevision != row.ModRevision {
				g.Changed[row.Key] = true
			}
		}
	}
}
