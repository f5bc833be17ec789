// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package table has the metrics of Directories and Registrars, whatever they are exported to.
package table

import "strings"

// Kind is how the values of a metric are to be understood.
type Kind int

const (
	Counter Kind = iota // grows
	Sum                 // rises and falls; those of several processes add up
	Gauge               // rises and falls; the greatest counts
	Histogram
)

// Metric is one metric.
type Metric struct {
	Name    string // in OpenTelemetry, without "rollcall."
	Unit    string // as in UCUM
	Kind    Kind
	Service bool   // it is told by service
	Label   string // by what else it is told; "": nothing
	Help    string
}

// The metrics of a Directory and, from Registrations on, of Registrars.
var (
	Services      = &Metric{"services", "{service}", Sum, false, "state", "Services that are followed, by state: current, stale, or waiting for a first answer."}
	Instances     = &Metric{"service.instances", "{instance}", Sum, true, "status", "Instances of a service: serving, draining, invalid (not readable), disallowed (not host:port), or retained by self-preservation."}
	Staleness     = &Metric{"service.staleness", "s", Gauge, true, "", "How long a service has been stale or waiting; 0 while it follows etcd."}
	Revision      = &Metric{"service.revision", "{revision}", Gauge, true, "", "Revision of etcd's store that the service's snapshot is of."}
	Subscribers   = &Metric{"service.subscribers", "{subscriber}", Sum, true, "", "Subscriptions to a service within the process."}
	Events        = &Metric{"service.events", "{event}", Counter, true, "", "Events received from the service's watch."}
	Updates       = &Metric{"service.updates", "{update}", Counter, true, "", "Snapshots published to subscribers."}
	Conflated     = &Metric{"service.conflated_events", "{event}", Counter, true, "", "Events published together with the one before, not by themselves."}
	Preservations = &Metric{"service.self_preservations", "{occurrence}", Counter, true, "", "Times that self-preservation began to retain instances."}
	Latency       = &Metric{"update.latency", "s", Histogram, false, "", "Time from the receipt of a change to each subscriber that is given it."}
	Lists         = &Metric{"lists", "{list}", Counter, false, "cause", "Lists begun, by what they were for."}
	WatchOpens    = &Metric{"watch.opens", "{watch}", Counter, false, "", "Watches opened."}
	WatchRestarts = &Metric{"watch.restarts", "{restart}", Counter, false, "cause", "Watches that ended and were to be opened anew, by why they ended."}
	Differences   = &Metric{"inconsistencies", "{inconsistency}", Counter, false, "", "Snapshots that a check found to differ from etcd, and that were mended."}
	Outage        = &Metric{"etcd.outage", "s", Gauge, false, "", "How long etcd has been unreachable; 0 while it can be reached."}
	Epochs        = &Metric{"etcd.epochs", "{epoch}", Counter, false, "", "Times that etcd was found to have lost its data or to be restored from a backup."}
	Views         = &Metric{"views", "{view}", Sum, false, "", "Views of many services that are followed, as by a console."}
	KeyWatches    = &Metric{"key_watches", "{watch}", Sum, false, "", "Keys that Registrars watch one by one."}
	Remembered    = &Metric{"remembered_services", "{service}", Sum, false, "", "Services that nobody follows, remembered in case etcd is down when somebody does."}

	Registrations = &Metric{"registrations", "{registration}", Sum, false, "phase", "Endpoints that the process keeps in etcd, by phase."}
	LeaseGrants   = &Metric{"lease.grants", "{lease}", Counter, false, "", "Leases granted."}
	LeaseRenewals = &Metric{"lease.renewals", "{renewal}", Counter, false, "", "Keepalives that etcd answered."}
	LeaseLosses   = &Metric{"lease.losses", "{lease}", Counter, false, "cause", "Leases lost: expired (etcd does not have them any more), unrenewed for their whole time, or replaced to keep late writes out."}
	Writes        = &Metric{"registration.writes", "{write}", Counter, false, "", "Keys put or deleted, as sent."}
	WriteFailures = &Metric{"registration.write_failures", "{write}", Counter, false, "", "Of the keys put or deleted, those that etcd refused or did not answer."}
)

// All are all metrics, in the order of the documentation.
var All = []*Metric{
	Services, Instances, Staleness, Revision, Subscribers, Events, Updates, Conflated, Preservations, Latency,
	Lists, WatchOpens, WatchRestarts, Differences, Outage, Epochs, Views, KeyWatches, Remembered,
	Registrations, LeaseGrants, LeaseRenewals, LeaseLosses, Writes, WriteFailures,
}

// PrometheusName returns the name in Prometheus.
func (m *Metric) PrometheusName() string {
	name := "rollcall_" + strings.ReplaceAll(m.Name, ".", "_")
	if m.Unit == "s" {
		name += "_seconds"
	}
	if m.Kind == Counter {
		name += "_total"
	}
	return name
}

// OTelName returns the name in OpenTelemetry.
func (m *Metric) OTelName() string { return "rollcall." + m.Name }
