// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolving_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/leastrequest"
	_ "google.golang.org/grpc/balancer/ringhash"
	_ "google.golang.org/grpc/balancer/weightedroundrobin"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	_ "github.com/rollcall-grpc/rollcall/balancer/weighted"
	_ "github.com/rollcall-grpc/rollcall/balancer/zone"
	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

const ringHash = `{"loadBalancingConfig":[{"ring_hash_experimental":{"requestHashHeader":"user"}}]}`

// placed calls for some users and returns which server answered each.
func placed(e *lab.Env, conn *grpc.ClientConn, users int) map[string]string {
	got := make(map[string]string, users)
	for i := range users {
		user := fmt.Sprint("user-", i)
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(e.Ctx, "user", user), 5*time.Second)
		name, err := lab.CallNamed(ctx, conn)
		cancel()
		e.OK(err)
		got[user] = name
	}
	return got
}

func TestG13RingHashReachesEveryServer(t *testing.T) {
	t.Parallel()
	const calls = 600
	for _, row := range []struct {
		name     string
		ids      []string
		metadata any
	}{
		{"ids that end alike", []string{"x/1", "y/1", "z/1"}, nil},
		{"equal hash keys", []string{"x", "y", "z"}, map[string]string{"hash_key": "h"}},
		{"a hash key that is an id", []string{"w", "x", "y"}, map[string]string{"hash_key": "w"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
				for _, id := range row.ids {
					e.OK(e.Manager().AddEndpoint(e.Ctx, e.Key(id), endpoints.Endpoint{Addr: lab.StartServer(e.T, id).Addr, Metadata: row.metadata}))
				}
				target := "etcd:///" + e.Target
				conn := e.DialBy(e.Builder(), target, grpc.WithDefaultServiceConfig(ringHash))
				got := placed(e, conn, calls)
				shares := make(map[string]int)
				for _, server := range got {
					shares[server]++
				}
				lab.Note(e.T, "%s: %d calls are answered %v", row.name, calls, shares)
				for _, id := range row.ids {
					if shares[id] < calls/len(row.ids)/2 {
						e.Failf("%d of %d calls reach %s: %v", shares[id], calls, id, shares)
					}
				}

				// Every client places a user on the same server, also after others came and went.
				e.Same("what another client calls", placed(e, e.DialBy(e.BuilderOf(e.ClientWith()), target, grpc.WithDefaultServiceConfig(ringHash)), calls), got)
				e.OK(e.Manager().AddEndpoint(e.Ctx, e.Key("~"), endpoints.Endpoint{Addr: lab.StartServer(e.T, "~").Addr, Metadata: row.metadata}))
				e.Eventually(func() error {
					for _, server := range placed(e, conn, calls) {
						if server == "~" {
							return nil
						}
					}
					return fmt.Errorf("the new server gets no calls")
				})
				e.OK(e.Manager().DeleteEndpoint(e.Ctx, e.Key("~")))
				e.Eventually(func() error {
					for user, server := range placed(e, conn, calls) {
						if server != got[user] {
							return fmt.Errorf("%s is on %s, and was on %s", user, server, got[user])
						}
					}
					return nil
				})
			})
		})
	}
}

func TestG12LastEndpointLeaves(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{`"pick_first":{}`, `"round_robin":{}`, `"ring_hash_experimental":{"requestHashHeader":"user"}`,
		`"least_request_experimental":{}`, `"weighted_round_robin":{}`, `"rollcall_weighted":{}`, `"rollcall_zone":{}`} {
		t.Run(strings.Trim(strings.Split(policy, ":")[0], `"`), func(t *testing.T) {
			t.Parallel()
			lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
				lastLeaves(e, fmt.Sprintf(`{"loadBalancingConfig":[{%s}]}`, policy))
			})
		})
	}
}

func lastLeaves(e *lab.Env, config string) {
	target := "etcd:///" + e.Target
	if e.Ours() {
		target += "?version=v1"
	}
	server := lab.StartServer(e.T, "one")
	good := fmt.Sprintf(`{"Addr":%q,"Metadata":{"version":"v1"}}`, server.Addr)
	conn := e.DialBy(e.Builder(), target, grpc.WithDefaultServiceConfig(config))

	// says calls until a call fails for these reasons, and lets no call fail without a good one.
	says := func(reasons ...string) {
		began := time.Now()
		e.Eventually(func() error {
			_, err := e.Call(conn)
			if err == nil {
				return fmt.Errorf("calls go on after the last endpoint left")
			}
			for _, part := range []string{fmt.Sprintf("%q", e.Target), fmt.Sprintf("%q", e.Target+"/"), "at revision "} {
				if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), part) {
					e.Failf("a call failed with %v, want UNAVAILABLE naming %s", err, part)
				}
			}
			for _, reason := range reasons {
				if !strings.Contains(err.Error(), reason) {
					return fmt.Errorf("a call failed with %v, want it to name %s", err, reason)
				}
			}
			return nil
		})
		e.Within("calls fail and say: "+strings.Join(reasons, ", "), began, time.Second)
	}
	lease, err := e.Client.Grant(e.Ctx, 3600)
	e.OK(err)
	draining := strings.Replace(good, `"version"`, `"status":"draining","version"`, 1)
	for _, row := range []struct {
		value  string
		lease  []clientv3.OpOption
		reason string
	}{
		{good, nil, "its last endpoint was deleted at revision %d"},
		{good, []clientv3.OpOption{clientv3.WithLease(lease.ID)}, "its last endpoint vanished at revision %d (its lease ended or it was deleted)"},
		{draining, nil, "its last endpoint left at revision %d"},
	} {
		e.Put(e.Key("a"), row.value, row.lease...)
		e.Reaches(conn, "one")
		gone, err := e.Client.Delete(e.Ctx, e.Key("a"))
		e.OK(err)
		says(fmt.Sprintf(row.reason, gone.Header.Revision))
	}
	e.Put(e.Key("a"), `not JSON`)
	says("1 invalid", fmt.Sprintf("%q", e.Key("a")))
	e.Put(e.Key("a"), `{"Addr":"unix:/run/x","Metadata":{"version":"v1"}}`)
	says("its only endpoint is disallowed", "unix:/run/x")
	e.Put(e.Key("a"), fmt.Sprintf(`{"Addr":%q,"Metadata":{"version":"v2"}}`, server.Addr))
	says("none of 1 matches version=v1")

	e.Put(e.Key("a"), good)
	joined := time.Now()
	e.Reaches(conn, "one")
	e.Within("calls succeed after an endpoint joined", joined, time.Second)
}
