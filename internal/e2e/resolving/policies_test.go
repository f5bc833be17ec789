// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolving_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/ringhash"
	"google.golang.org/grpc/metadata"

	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/etcdtest"
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
