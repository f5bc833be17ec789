// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	_ "google.golang.org/grpc/balancer/leastrequest"
	_ "google.golang.org/grpc/balancer/randomsubsetting"
	_ "google.golang.org/grpc/balancer/ringhash"
	_ "google.golang.org/grpc/balancer/roundrobin"
	_ "google.golang.org/grpc/balancer/weightedroundrobin"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/serviceconfig"
	"google.golang.org/grpc/test/bufconn"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/balancer/weighted"
	"github.com/rollcall-grpc/rollcall/balancer/zone"
)

// policies are balancing policies, with the configurations that are measured.
var policies = map[string]struct{ name, config string }{
	"pick_first":           {"pick_first", `{}`},
	"round_robin":          {"round_robin", `{}`},
	"weighted_round_robin": {"weighted_round_robin", `{}`},
	"least_request":        {"least_request_experimental", `{"choiceCount":2}`},
	"ring_hash":            {"ring_hash_experimental", `{"minRingSize":1024,"requestHashHeader":"key"}`},
	"random_subsetting":    {"random_subsetting_experimental", `{"subsetSize":10,"childPolicy":[{"round_robin":{}}]}`},
	weighted.Name:          {weighted.Name, `{}`},
	zone.Name:              {zone.Name, `{"zone":"eu-2"}`},
	spilling:               {zone.Name, `{"zone":"eu-1"}`},
}

// spilling is rollcall_zone with calls that leave the zone.
const spilling = zone.Name + ", spilling"

// barred are the policies that have bars. They are measured even where others take too long.
var barred = []string{"round_robin", weighted.Name, zone.Name}

func picks(sizes ...int) (all []scenario) {
	for _, n := range sizes {
		subjects := barred
		if n < 10_000 {
			subjects = append([]string{"pick_first", "weighted_round_robin", "least_request", "ring_hash", "random_subsetting", spilling}, barred...)
		}
		all = append(all, scenario{
			name: fmt.Sprintf("picks/%d", n), title: fmt.Sprintf("A pick among %s", thousands(n)),
			about:    "Endpoints that Rollcall resolved, all connected, with weights from 1 to 10. A call that spills out of its zone takes two picks: one among the groups of servers, and one within a group. Figures are the lower quartile of 40 batches in one process; there is one process for each policy.",
			subjects: subjects,
			metrics:  []metric{{name: "picks", unit: "million a second", more: true}, {name: "time", unit: "ns"}, {name: "allocations"}},
			run:      func(address, policy string) sample { return pick(address, policy, n) },
			rounds:   1,
			slow:     true,
		})
	}
	return all
}

// captured records the picker of another policy.
type captured struct{ balancer.Builder }

// ready is the current picker of the channel, and its state.
var ready atomic.Pointer[balancer.State]

func (captured) Name() string { return "captured" }

func (c captured) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	return c.Builder.Build(capturing{cc}, opts)
}

func (c captured) ParseConfig(config json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	if parser, ok := c.Builder.(balancer.ConfigParser); ok {
		return parser.ParseConfig(config)
	}
	return nil, nil
}

type capturing struct{ balancer.ClientConn }

func (c capturing) UpdateState(s balancer.State) {
	ready.Store(&s)
	c.ClientConn.UpdateState(s)
}

// pick measures a policy's picks among n endpoints, which are all the same server.
func pick(address, policy string, n int) sample {
	const service = "picks"
	write(address, ours, service, "fill", n)
	balancer.Register(captured{balancer.Get(policies[policy].name)})
	l := bufconn.Listen(1 << 12)
	go func() { check(grpc.NewServer().Serve(l)) }()
	conn := must(grpc.NewClient("etcd:///"+service, grpc.WithResolvers(builder(ours, connect(address))),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(fmt.Sprintf(`{"loadBalancingConfig":[{"captured":%s}]}`, policies[policy].config)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return l.DialContext(ctx)
		})))
	conn.Connect()
	info := balancer.PickInfo{FullMethodName: "/bench/Pick", Ctx: metadata.AppendToOutgoingContext(context.Background(), "key", "some-user")}
	// All are connected once there are no more states, which takes long with many endpoints.
	for before := (*balancer.State)(nil); before == nil || before != ready.Load() || before.ConnectivityState != connectivity.Ready; {
		if before = ready.Load(); before != nil {
			_, _ = before.Picker.Pick(info) // some policies connect only when asked
		}
		time.Sleep(100*time.Millisecond + time.Duration(n)*40*time.Microsecond)
	}
	picker := ready.Load().Picker
	return perOp(func() {
		if result, err := picker.Pick(info); err != nil || result.Done != nil {
			done(result, err) // only some policies set it
		}
	})
}

func done(result balancer.PickResult, err error) {
	check(err)
	result.Done(balancer.DoneInfo{})
}

// perOp measures the time and the allocations of a function. It takes the lower quartile of
// many batches, since other load on the machine comes in bursts.
func perOp(do func()) sample {
	const batches, long = 40, 10 * time.Millisecond
	batch := func(n int) time.Duration {
		began := time.Now()
		for range n {
			do()
		}
		return time.Since(began)
	}
	n := 1000
	for batch(n) < long {
		n *= 2
	}
	var all []float64
	for range batches {
		all = append(all, float64(batch(n).Nanoseconds())/float64(n))
	}
	ns := quantile(all, 0.25)
	return sample{"time": ns, "picks": 1e3 / ns, "allocations": testing.AllocsPerRun(1000, do)}
}

func decode(subject string) sample {
	var err error
	defer func() { check(err) }()
	kv := &mvccpb.KeyValue{Key: []byte("my-service/" + addr(1)), Value: []byte(value(ours, addr(1), 1)), ModRevision: 2}
	if subject == ours {
		return perOp(func() { _, err = rollcall.Decode(kv) })
	}
	return perOp(func() {
		var v struct {
			Op       uint8
			Addr     string
			Metadata any
		}
		err = json.Unmarshal(kv.Value, &v)
	})
}
