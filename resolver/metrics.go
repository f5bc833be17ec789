// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	estats "google.golang.org/grpc/experimental/stats"
	grpcresolver "google.golang.org/grpc/resolver"
)

// Metrics of gRPC's own (gRFC A79), off unless a program asks for them.
var (
	updatesMetric = estats.RegisterInt64Count(estats.MetricDescriptor{
		Name:        "rollcall.resolver.updates",
		Description: "EXPERIMENTAL. States that a channel was given.",
		Unit:        "{update}",
		Labels:      []string{"grpc.target"},
	})
	errorsMetric = estats.RegisterInt64Count(estats.MetricDescriptor{
		Name:        "rollcall.resolver.errors",
		Description: "EXPERIMENTAL. Reasons that a channel was given for having no endpoints.",
		Unit:        "{error}",
		Labels:      []string{"grpc.target"},
	})
)

// countedConn counts what a channel is told.
type countedConn struct {
	grpcresolver.ClientConn
	recorder estats.MetricsRecorder
	target   string
}

// counted returns a channel that counts what it is told, where there is a recorder.
func counted(cc grpcresolver.ClientConn, target grpcresolver.Target, opts grpcresolver.BuildOptions) grpcresolver.ClientConn {
	if opts.MetricsRecorder == nil {
		return cc
	}
	return &countedConn{cc, opts.MetricsRecorder, target.String()}
}

func (c *countedConn) UpdateState(s grpcresolver.State) error {
	updatesMetric.Record(c.recorder, 1, c.target)
	return c.ClientConn.UpdateState(s)
}

func (c *countedConn) ReportError(err error) {
	errorsMetric.Record(c.recorder, 1, c.target)
	c.ClientConn.ReportError(err)
}
