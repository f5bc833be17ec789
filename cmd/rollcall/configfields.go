// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// configFields are the fields of an object in a service config, and what is in them: nil for what is not looked
// into. Those of a list are the fields of its items.
type configFields map[string]configFields

// serviceConfigFields are those of grpc.service_config.ServiceConfig, as proto3 names them in JSON. gRPC ignores
// any other, a misspelt one, too.
var serviceConfigFields = configFields{
	"loadBalancingPolicy": nil,
	"loadBalancingConfig": policyFields,
	"methodConfig": {
		"name":                    {"service": nil, "method": nil},
		"waitForReady":            nil,
		"timeout":                 nil,
		"maxRequestMessageBytes":  nil,
		"maxResponseMessageBytes": nil,
		"retryPolicy": {"maxAttempts": nil, "initialBackoff": nil, "maxBackoff": nil, "backoffMultiplier": nil,
			"retryableStatusCodes": nil, "perAttemptRecvTimeout": nil},
		"hedgingPolicy": {"maxAttempts": nil, "hedgingDelay": nil, "nonFatalStatusCodes": nil},
	},
	"retryThrottling":   {"maxTokens": nil, "tokenRatio": nil},
	"healthCheckConfig": {"serviceName": nil},
	"connectionScaling": {"maxConnectionsPerSubchannel": nil},
}

// policyFields are the policies whose fields are known; gRPC itself checks the names of policies.
var policyFields = configFields{
	"pick_first":  {"shuffleAddressList": nil},
	"round_robin": {},
	"ring_hash":   {"minRingSize": nil, "maxRingSize": nil, "requestHashHeader": nil},
	"weighted_round_robin": {"enableOobLoadReport": nil, "oobReportingPeriod": nil, "blackoutPeriod": nil,
		"weightExpirationPeriod": nil, "weightUpdatePeriod": nil, "errorUtilizationPenalty": nil, "metricNamesForComputingUtilization": nil},
	"least_request_experimental": {"choiceCount": nil},
}

// unknownFields returns what is wrong with the fields of a service config that gRPC would ignore. Names match in
// any case, as in gRPC for Go.
func unknownFields(text []byte) []string {
	var value any
	if json.Unmarshal(text, &value) != nil {
		return nil
	}
	return serviceConfigFields.unknown("", value)
}

func (f configFields) unknown(at string, value any) (all []string) {
	if f == nil {
		return nil
	}
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			all = append(all, f.unknown(at, item)...)
		}
	case map[string]any:
		known := slices.Sorted(maps.Keys(f))
		for _, name := range slices.Sorted(maps.Keys(value)) {
			i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, name) })
			switch {
			case i >= 0:
				all = append(all, f[known[i]].unknown(at+known[i]+".", value[name])...)
			case at != "loadBalancingConfig.":
				all = append(all, fmt.Sprintf("%q%s", at+name, didYouMean(name, known)))
			}
		}
	}
	return all
}

// warnConfig reports fields of a service config that have no effect.
func (a *app) warnConfig(service string, text []byte) {
	for _, field := range unknownFields(text) {
		a.say("the service config of %q has a field that gRPC does not know and ignores: %s", service, field)
	}
}
