// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/roundrobin"
	"google.golang.org/grpc/serviceconfig"

	"github.com/rollcall-grpc/rollcall"
)

// levels is the number of parts of a locality.
const levels = 3

// locality is the region, zone and subzone of an endpoint or the caller. An empty part of
// the caller's is not considered.
type locality [levels]string

func localityOf(l rollcall.Locality) locality { return locality{l.Region, l.Zone, l.Subzone} }

func (l locality) exported() rollcall.Locality {
	return rollcall.Locality{Region: l[0], Zone: l[1], Subzone: l[2]}
}

// settings are the policy's part of a service config.
type settings struct {
	serviceconfig.LoadBalancingConfig `json:"-"`

	caller locality
	below  [levels]float64 // spillBelow
	child  childPolicy
}

// childPolicy is what balances within each group.
type childPolicy struct {
	builder balancer.Builder
	config  serviceconfig.LoadBalancingConfig
}

// parse reads settings; the parts of the caller's locality that they leave out are those of env.
func parse(data json.RawMessage, env rollcall.Locality) (*settings, error) {
	var raw struct {
		Region, Zone, Subzone *string
		SpillBelow            struct{ Region, Zone, Subzone *float64 }
		ChildPolicy           []map[string]json.RawMessage
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	s := &settings{caller: localityOf(env), below: [levels]float64{0.1, 0.9, 0.9}}
	parts := [levels]struct {
		name  string
		value *string
		below *float64
	}{
		{"region", raw.Region, raw.SpillBelow.Region},
		{"zone", raw.Zone, raw.SpillBelow.Zone},
		{"subzone", raw.Subzone, raw.SpillBelow.Subzone},
	}
	for i, part := range parts {
		if part.value != nil {
			s.caller[i] = *part.value
		}
		if part.below == nil {
			continue
		}
		if s.below[i] = *part.below; s.below[i] <= 0 || s.below[i] > 1 {
			return nil, fmt.Errorf("%s: spillBelow.%s is %v; it must be above 0 and at most 1", Name, part.name, s.below[i])
		}
	}
	var err error
	if s.child, err = parseChild(raw.ChildPolicy); err != nil {
		return nil, fmt.Errorf("%s: childPolicy: %w", Name, err)
	}
	return s, nil
}

// parseChild returns the first policy of a list that is registered in this program, as gRPC
// does with loadBalancingConfig; round_robin without a list.
func parseChild(list []map[string]json.RawMessage) (childPolicy, error) {
	if list == nil {
		list = []map[string]json.RawMessage{{roundrobin.Name: json.RawMessage("{}")}}
	}
	var unknown []string
	for i, entry := range list {
		if len(entry) != 1 {
			return childPolicy{}, fmt.Errorf("entry %d names %d policies; it must name one", i, len(entry))
		}
		for name, config := range entry {
			c := childPolicy{builder: balancer.Get(name)}
			if c.builder == nil {
				unknown = append(unknown, name)
				continue
			}
			parser, ok := c.builder.(balancer.ConfigParser)
			if !ok {
				return c, nil
			}
			var err error
			if c.config, err = parser.ParseConfig(config); err != nil {
				return childPolicy{}, fmt.Errorf("%s: %w", name, err)
			}
			return c, nil
		}
	}
	if len(unknown) == 0 {
		return childPolicy{}, errors.New("the list is empty")
	}
	return childPolicy{}, fmt.Errorf("none of %s is registered in this program; import its package", strings.Join(unknown, ", "))
}
