// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/rollcall-grpc/rollcall"
)

// serviceConfig is the service config of one channel.
type serviceConfig struct {
	parse func(string) *serviceconfig.ParseResult // the channel's
	under json.RawMessage                         // what a stored one is laid over; nil: nothing

	stored  json.RawMessage            // what etcd has, valid or not
	invalid error                      // why it is not valid
	known   bool                       // etcd has answered, or not in time
	current *serviceconfig.ParseResult // what the channel is told; nil: nothing
	changed bool                       // since it was told
}

func (c *serviceConfig) start(cc grpcresolver.ClientConn, standard, under string) {
	c.parse = cc.ParseServiceConfig
	switch {
	case standard != "":
		c.under = json.RawMessage(standard)
		c.set(c.under)
	case under != "":
		c.under = json.RawMessage(under)
	}
}

func (c *serviceConfig) set(config json.RawMessage) {
	c.current, c.changed = c.parse(string(config)), true
}

// take has the channel told of what is stored, laid over what is under it. A config that
// gRPC rejects is an error, each time, and changes nothing. When the stored config is gone
// the channel is told of what is under it, or of an empty one: otherwise it would keep the
// last one.
func (c *serviceConfig) take(stored json.RawMessage) error {
	if c.known && bytes.Equal(stored, c.stored) && (stored == nil) == (c.stored == nil) {
		return c.invalid
	}
	c.stored, c.known, c.invalid = stored, true, nil
	switch {
	case stored != nil:
		config, err := overlay(c.under, stored)
		if err != nil {
			c.invalid = err
			return err
		}
		result := c.parse(string(config))
		if c.invalid = withImport(result.Err); c.invalid != nil {
			return c.invalid
		}
		c.current, c.changed = result, true
	case c.current == nil: // nor was the channel told of one
	case c.under != nil:
		c.set(c.under)
	default:
		c.set(json.RawMessage("{}"))
	}
	return nil
}

// overlay returns an object with the fields of both; those of over win, in whatever case
// they are written, as gRPC reads them. A policy in the older of the two forms wins as well.
func overlay(under, over json.RawMessage) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(over, &fields); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if fields == nil {
		return nil, errors.New("not a JSON object, but null")
	}
	if under == nil {
		return over, nil
	}
	all := make(map[string]json.RawMessage)
	if err := json.Unmarshal(under, &all); err != nil {
		return nil, err
	}
	maps.DeleteFunc(all, func(under string, _ json.RawMessage) bool {
		for over := range fields {
			if strings.EqualFold(under, over) || strings.EqualFold(under, "loadBalancingConfig") && strings.EqualFold(over, "loadBalancingPolicy") {
				return true
			}
		}
		return false
	})
	maps.Copy(all, fields)
	return json.Marshal(all)
}

// withImport adds what a program must import for a policy of Rollcall's that it does not know.
func withImport(err error) error {
	if err == nil || !strings.Contains(err.Error(), "no supported policies") {
		return err
	}
	for _, policy := range []string{"weighted", "zone"} {
		if strings.Contains(err.Error(), "rollcall_"+policy) {
			return fmt.Errorf("%w; import github.com/rollcall-grpc/rollcall/balancer/%s to use rollcall_%s", err, policy, policy)
		}
	}
	return err
}

// CheckServiceConfig returns an error unless gRPC accepts a service config, as JSON, with the
// balancing policies that are registered in this program: a *rollcall.InputError.
func CheckServiceConfig(config string) error {
	_, err := overlay(nil, json.RawMessage(config))
	if err == nil {
		var conn *grpc.ClientConn
		conn, err = grpc.NewClient("passthrough:///unused", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultServiceConfig(config)) // the only way to gRPC's parser
		if err == nil {
			return conn.Close()
		}
	}
	reason := strings.TrimPrefix(withImport(err).Error(), "grpc: the provided default service config is invalid: ")
	return &rollcall.InputError{Field: "service config", Value: config, Reason: reason}
}
