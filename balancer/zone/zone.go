// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package zone is the gRPC balancing policy "rollcall_zone": calls stay in the caller's zone
// while that has its share of the healthy servers, and spill over in proportion to what it
// lacks: to the other zones of the region, and from a region that has next to nothing left
// to anywhere. To use it, import it and name it in the service config:
//
//	{"loadBalancingConfig": [{"rollcall_zone": {
//	  "region":      "eu",
//	  "zone":        "eu-1",
//	  "subzone":     "",
//	  "spillBelow":  {"region": 0.1, "zone": 0.9, "subzone": 0.9},
//	  "childPolicy": [{"round_robin": {}}]
//	}}]}
//
// All fields may be left out; those shown for spillBelow and childPolicy are the defaults.
// The parts of the caller's locality that the config leaves out come from the environment,
// which is read once; see [rollcall.LocalityFromEnv]. An empty part is not considered. The
// localities of the servers come from their metadata. Without any part of the caller's, and
// with servers in one locality, the policy is its child policy.
//
// # The curve
//
// The capacity of a zone is the sum of the weights of its serving members, without those
// that cannot be connected to. With the capacities c of the zones of the caller's region,
// the typical capacity is m = sum(c*c)/sum(c), that of the zone of the average server, and
// the share of the calls that stays in the zone is
//
//	min(1, c of the zone / (spillBelow * m))
//
// The rest goes to the other zones of the region. Of two zones of ten servers, the one that
// loses five keeps 67 % of its calls, so that its servers and the others' are equally busy.
// Regions, where the caller's is known, share in the same way, but begin at a tenth of the
// typical capacity: regions differ in size, and are far away.
//
// # Children
//
// Each group (the caller's subzone, the rest of the zone, the rest of the region, anywhere)
// has a child policy of its own. It is made when calls first go there, so that a healthy
// zone has no connections to others, and stays for five minutes after they stopped. Calls
// wait while no group that should have them is connected. A group that has not connected
// within 10 s, or whose members are all unhealthy, counts as having no capacity. Health
// checks and outlier ejections of single members are the child's alone, and take nothing
// from the capacity. A server whose locality is changed in etcd moves to another child: that
// reconnects.
//
// # Metrics
//
// The policy records rollcall.lb.zone.picks and rollcall.lb.zone.share through gRPC's own
// metrics, which google.golang.org/grpc/stats/opentelemetry exports where they are asked for.
//
// # Experimental
//
// It rests on gRPC's package balancer, which is experimental.
//
// # Concurrency
//
// The policy has one timer and no goroutine. Calls into the children are made one at a time,
// under policy.children; policy.mu, which is taken last, guards what they report.
package zone

import (
	"encoding/json"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/serviceconfig"

	"github.com/rollcall-grpc/rollcall"
)

// Name is the policy's name in a service config.
const Name = "rollcall_zone"

func init() { balancer.Register(builder{sync.OnceValue(rollcall.LocalityFromEnv)}) }

type builder struct {
	caller func() rollcall.Locality // for what a config leaves out
}

func (builder) Name() string { return Name }

func (b builder) ParseConfig(data json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	return parse(data, b.caller())
}

func (b builder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	p := &policy{builder: b, cc: cc, opts: opts, err: errors.New(Name + ": no endpoints yet")}
	for i := range p.groups {
		p.groups[i] = &group{policy: p, labels: metricLabels(opts.Target.String(), i)}
	}
	p.timer = time.AfterFunc(never, p.reconcile)
	return p
}
