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
	parse    func(string) *serviceconfig.ParseResult // the channel's
	fallback json.RawMessage                         // Options.DefaultServiceConfig; nil: none

	stored  json.RawMessage            // what etcd has, taken or refused
	refused error                      // why it is
	known   bool                       // etcd has said what it has, or not in time
	current *serviceconfig.ParseResult // what the channel is told; nil: nothing
	changed bool                       // since it was told
}

func (c *serviceConfig) start(cc grpcresolver.ClientConn, fallback string) {
	c.parse = cc.ParseServiceConfig
	if fallback != "" {
		c.fallback = json.RawMessage(fallback)
		c.set(c.fallback)
	}
}

func (c *serviceConfig) set(config json.RawMessage) {
	c.current, c.changed = c.parse(string(config)), true
}

// take has the channel told of what is stored, laid over the fallback. One that gRPC
// refuses is an error, each time, and changes nothing. When what was stored is gone the channel is
// told of the fallback, or of an empty one: it would keep the last one otherwise.
func (c *serviceConfig) take(stored json.RawMessage) error {
	if c.known && bytes.Equal(stored, c.stored) && (stored == nil) == (c.stored == nil) {
		return c.refused
	}
	c.stored, c.known, c.refused = stored, true, nil
	switch {
	case stored != nil:
		config, err := overlay(c.fallback, stored)
		if err != nil {
			c.refused = err
			return err
		}
		result := c.parse(string(config))
		if c.refused = result.Err; c.refused != nil {
			return c.refused
		}
		c.current, c.changed = result, true
	case c.fallback != nil:
		c.set(c.fallback)
	case c.current != nil:
		c.set(json.RawMessage("{}"))
	}
	return nil
}

// overlay returns an object with the fields of both; those of over win, in whatever case
// they are written, as gRPC reads them. A policy in the older of the two forms wins as well.
func overlay(under, over json.RawMessage) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(over, &fields); err != nil {
		return nil, fmt.Errorf("it is no JSON object: %w", err)
	}
	if fields == nil {
		return nil, errors.New("it is null, no JSON object")
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

// CheckServiceConfig says whether gRPC takes a service config, JSON, with the balancing
// policies that are registered in this program. The error is a *rollcall.InputError.
func CheckServiceConfig(config string) error {
	_, err := overlay(nil, json.RawMessage(config))
	if err == nil {
		var conn *grpc.ClientConn
		conn, err = grpc.NewClient("passthrough:///unused", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultServiceConfig(config)) // the one way to gRPC's parser
		if err == nil {
			return conn.Close()
		}
	}
	reason := strings.TrimPrefix(err.Error(), "grpc: the provided default service config is invalid: ")
	return &rollcall.InputError{Field: "service config", Value: config, Reason: reason}
}
