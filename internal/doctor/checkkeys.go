// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

const (
	// renewals is how many keepalives etcd's client sends in a TTL.
	renewals = 3
	// tripsPerRenewal is how many round trips must fit between two keepalives: one for the keepalive, and the
	// others for what a slow moment and a reconnection take.
	tripsPerRenewal = 5
	// manyServices is from how many services on a shared lease is worth knowing.
	manyServices = 50
)

var keyChecks = []check{
	{"keys-unknown", Warning, "What was not read was not looked at: faults there go unseen.",
		"See what is found of etcd, and run doctor again, with a longer --dial-timeout if etcd is slow.", unread},
	{"key-undecodable", Warning, "Clients leave it out: the server that wrote it, if one did, gets no calls.",
		"Have it written anew by what registers the server. Without a lease it stays until somebody removes it.", undecodable},
	{"key-foreign", Note, "Clients of a service with such keys get no endpoint of them. In an etcd that others use too there is nothing to mend.",
		"Nothing, if they are others' data; see rollcall ls for the names.", foreign},
	{"key-without-service", Warning, "A target is the part before the last \"/\": no client finds it.",
		"Register it as SERVICE/ID, and remove the key.", bare},
	{"address-disallowed", Warning, "Clients leave it out: the server gets no calls.",
		"Register the server at an address that clients can dial.", disallowed},
	{"address-duplicate", Warning, "Clients call the server once, and the newest key alone counts: to drain or remove the other changes nothing. Often a server took a new id at a restart and left the old key behind.",
		"Remove the others, where nothing renews their leases.", duplicates},
	{"id-duplicate", Note, "Either two processes have one id, and clients know one of them alone; or one process took another lease, and keeps the earlier one for nothing.",
		"If there are two, give each an id of its own: the log of the one without the key says that another took it over. If there is one, as an agent whose settings changed, nothing.", duplicateIDs},
	{"target-overlap", Warning, "A target is every key under its name and a \"/\": clients of the shorter name call servers of the longer one too.",
		"Rename one of the services, or give its servers ids without \"/\".", overlaps},
	{"id-hidden", Note, "rollcall ls, top and the pages split a key at its last \"/\", and show these endpoints under a longer name.",
		"Give the servers ids without \"/\".", hiddenIDs},
	{"lease-none", Warning, "Nothing takes it out when the server dies: calls go to it until somebody removes the key.",
		"Let the server register under a lease: serving.Run and a Registrar take the key over, rollcall register does with --force. Remove the key where the server then has another.", immortal},
	{"lease-ending", Warning, "Nothing renews it, or too seldom: when it ends the server is out, if it lives or not.",
		"Keep the lease alive for as long as the server runs: serving.Run, a Registrar and rollcall register do.", endingLeases},
	{"lease-short", Warning, "A keepalive that is late by a few round trips lets the lease end, and the server with it.",
		"Register with a longer TTL, or bring etcd nearer.", shortLeases},
	{"lease-shared", Note, "All of them vanish together when it ends.",
		"Nothing, if one process serves them all; else let each register by itself.", sharedLeases},
	{"weight-zero", Warning, "0 is not a weight: the endpoint has weight 1, and gets calls.",
		"To keep calls away, drain it.", zeroWeights},
	{"metadata-invalid", Note, "The fields' defaults apply.",
		"Have the metadata written anew by what registers the server.", invalidMetadata},
	{"config-invalid", Error, "No client can read it: channels keep what they had, and those that start have none.",
		"Write a valid one, or remove it.", invalidConfigs},
	{"config-field-unknown", Warning, "gRPC ignores it: what it was to set has its default.",
		"Correct its name, or remove it.", unknownConfigFields},
	{"config-orphan", Note, "Nobody has an endpoint of that name; perhaps it is misspelt, or the service has gone.",
		"Remove it if the service has gone.", orphanConfigs},
	{"service-empty", Error, "Every call to it fails at once.",
		"Start its servers, and see what they log; rollcall history tells what became of them.", empty},
	{"service-draining", Warning, "There is no endpoint left to drain to: clients call the draining ones.",
		"Undrain those that are to stay.", allDraining},
	{"zone-draining", Note, "Under rollcall_zone its clients call other zones. Those whose target selects the zone go on to call what drains: they have no other.",
		"If the zone is out of use on purpose, nothing; otherwise undrain its endpoints.", drainingZones},
}

func is(status inventory.Status) func(*inventory.Instance) bool {
	return func(row *inventory.Instance) bool { return row.Status == status }
}

func cause(row *inventory.Instance) string { return row.Cause }

func addr(row *inventory.Instance) string { return row.Addr }

func unread(f *Facts) []Finding {
	if len(f.Unread) == 0 {
		return nil
	}
	return []Finding{{What: "could not be read: " + strings.Join(f.Unread, "; ")}}
}

func undecodable(f *Facts) []Finding {
	return f.eachService(func(s Service) []Finding {
		rows := s.where(is(inventory.Invalid))
		if len(rows) == 0 {
			return nil
		}
		finding := ofService(s.Name, rows, "the value of %s cannot be read", cause)
		finding.Commands = forEach(unleased(rows), "rollcall rm")
		return []Finding{finding}
	})
}

func foreign(f *Facts) []Finding {
	if len(f.Foreign) == 0 {
		return nil
	}
	names := make([]string, 0, len(f.Foreign))
	for _, row := range f.Foreign {
		names = append(names, fmt.Sprintf("%q", row.Key))
	}
	return []Finding{{What: fmt.Sprintf("there is no endpoint in %s, nor in any other key of that name: %s", plural.Count(len(f.Foreign), "key", "keys"), named(names))}}
}

func bare(f *Facts) []Finding {
	if len(f.Bare) == 0 {
		return nil
	}
	finding := ofService("", f.Bare, "the key of %s names no service", addr)
	for _, row := range f.Bare {
		finding.Commands = append(finding.Commands, call("etcdctl del", row.Key))
	}
	return []Finding{finding}
}

func disallowed(f *Facts) []Finding {
	return f.eachService(func(s Service) []Finding {
		rows := s.where(is(inventory.Disallowed))
		if len(rows) == 0 {
			return nil
		}
		finding := ofService(s.Name, rows, "the address of %s is not allowed", func(row *inventory.Instance) string { return row.Addr + ": " + row.Cause })
		finding.Commands = forEach(unleased(rows), "rollcall rm")
		return []Finding{finding}
	})
}

// unleased returns the rows without a lease: what has one is put back as long as its server runs, and ends by itself after that.
func unleased(rows []*inventory.Instance) []*inventory.Instance {
	return slices.DeleteFunc(slices.Clone(rows), func(row *inventory.Instance) bool { return row.Lease != "" })
}

// usable reports whether clients may call the endpoint.
func usable(row *inventory.Instance) bool {
	return row.Status == inventory.Serving || row.Status == inventory.Draining
}

func escapePercent(s string) string { return strings.ReplaceAll(s, "%", "%%") }

func leaseOf(row *inventory.Instance) string {
	if row.Lease == "" {
		return "no lease"
	}
	return "lease " + row.Lease
}

func overlaps(f *Facts) (found []Finding) {
	for _, outer := range f.Services {
		direct := outer.where(func(row *inventory.Instance) bool { return !strings.Contains(row.ID, "/") })
		if len(direct) == 0 {
			continue
		}
		longer := outer.where(func(row *inventory.Instance) bool { return strings.Contains(row.ID, "/") }) // where it was asked for
		prefix := outer.Name + "/"
		i, _ := slices.BinarySearchFunc(f.Services, prefix, func(s Service, name string) int { return strings.Compare(s.Name, name) })
		for ; len(f.Asked) == 0 && i < len(f.Services) && strings.HasPrefix(f.Services[i].Name, prefix); i++ {
			longer = append(longer, f.Services[i].Rows...)
		}
		if len(longer) > 0 {
			finding := ofService(outer.Name, longer, fmt.Sprintf("clients of %s call %%s of longer names, too", escapePercent(fmt.Sprintf("%q", outer.Name))), addr)
			finding.Commands = [][]string{call("rollcall ls", outer.Name), call("rollcall resolve", outer.Name)}
			found = append(found, finding)
		}
	}
	return found
}

func hiddenIDs(f *Facts) []Finding {
	return f.eachService(func(s Service) []Finding {
		hidden := s.where(func(row *inventory.Instance) bool { return strings.Contains(row.ID, "/") })
		if len(hidden) == 0 || len(hidden) < len(s.Rows) {
			return nil // target-overlap tells of those
		}
		finding := ofService(s.Name, hidden, "the id of %s has a \"/\"", addr)
		finding.Commands = calls("rollcall ls", s.Name)
		return []Finding{finding}
	})
}

func immortal(f *Facts) []Finding {
	return f.eachService(func(s Service) []Finding {
		rows := s.where(func(row *inventory.Instance) bool {
			answer, dialled := f.Answers[row.Addr]
			silent := dialled && !answer.Connected && row.Status == inventory.Serving // server-silent tells of it
			return usable(row) && row.Lease == "" && !silent
		})
		if len(rows) == 0 {
			return nil
		}
		finding := ofService(s.Name, rows, "%s without a lease", addr)
		finding.Commands = calls("rollcall get", s.Name)
		return []Finding{finding}
	})
}

// ending reports whether a lease has less left than every client that renews it in time would let it
// come to: one that sends two keepalives in a TTL keeps more than half, and etcd's own two thirds.
func ending(ttl inventory.TTL) bool { return ttl.Granted == 0 || renewals*ttl.Left < ttl.Granted }

func endingLeases(f *Facts) []Finding {
	return f.eachService(func(s Service) []Finding {
		rows := s.where(func(row *inventory.Instance) bool {
			second, seen := f.Second[row.Lease]
			return seen && ending(second) && second.Left <= f.First[row.Lease].Left && !f.Changed[row.Key]
		})
		if len(rows) == 0 {
			return nil
		}
		finding := ofService(s.Name, rows, "the lease of %s ends, and nothing renews it", func(row *inventory.Instance) string {
			if second := f.Second[row.Lease]; second.Granted > 0 {
				return fmt.Sprintf("%d of %d s left", second.Left, second.Granted)
			}
			return "it has ended"
		})
		finding.Commands = calls("rollcall get", s.Name)
		return []Finding{finding}
	})
}

func shortLeases(f *Facts) []Finding {
	latency := f.latency()
	return f.eachService(func(s Service) []Finding {
		rows := s.where(func(row *inventory.Instance) bool {
			ttl := time.Duration(f.First[row.Lease].Granted) * time.Second
			return ttl > 0 && ttl/renewals < tripsPerRenewal*latency
		})
		if len(rows) == 0 {
			return nil
		}
		finding := ofService(s.Name, rows, fmt.Sprintf("the lease of %%s is too short for an etcd that takes %v to answer", latency.Round(time.Millisecond)),
			func(row *inventory.Instance) string { return fmt.Sprintf("%d s", f.First[row.Lease].Granted) })
		finding.Commands = calls("rollcall get", s.Name)
		return []Finding{finding}
	})
}

func sharedLeases(f *Facts) (found []Finding) {
	services := make(map[string][]string)
	var leases []string
	for _, s := range f.Services {
		for _, row := range s.Rows {
			names := services[row.Lease]
			if row.Lease == "" || len(names) > 0 && names[len(names)-1] == s.Name {
				continue
			}
			if names == nil {
				leases = append(leases, row.Lease)
			}
			services[row.Lease] = append(names, s.Name)
		}
	}
	for _, lease := range leases {
		if names := services[lease]; len(names) >= manyServices {
			found = append(found, Finding{What: fmt.Sprintf("%d services have endpoints under one lease, %s: %s", len(names), lease, named(names))})
		}
	}
	return found
}

// weightField is the metadata field that zeroWeights tells of.
const weightField = "weight"

func hasField(row *inventory.Instance, met func(field string) bool) bool {
	return slices.ContainsFunc(row.FieldErrors, func(e inventory.FieldError) bool { return met(e.Field) })
}

func zeroWeights(f *Facts) []Finding {
	return f.eachService(func(s Service) []Finding {
		rows := s.where(func(row *inventory.Instance) bool {
			return hasField(row, func(field string) bool { return field == weightField })
		})
		if len(rows) == 0 {
			return nil
		}
		finding := ofService(s.Name, rows, "the weight of %s is 0, or no weight at all", addr)
		finding.Commands = forEach(rows, "rollcall drain")
		return []Finding{finding}
	})
}

func invalidMetadata(f *Facts) []Finding {
	return f.eachService(func(s Service) []Finding {
		rows := s.where(func(row *inventory.Instance) bool {
			return hasField(row, func(field string) bool { return field != weightField })
		})
		if len(rows) == 0 {
			return nil
		}
		finding := ofService(s.Name, rows, "metadata of %s is ignored", func(row *inventory.Instance) string {
			var fields []string
			for _, e := range row.FieldErrors {
				fields = append(fields, e.Field+": "+e.Reason)
			}
			return strings.Join(fields, ", ")
		})
		finding.Commands = calls("rollcall get", s.Name)
		return []Finding{finding}
	})
}

func invalidConfigs(f *Facts) (found []Finding) {
	for _, c := range f.Configs {
		if err := f.CheckConfig(string(c.JSON)); err != nil {
			found = append(found, ofConfig(c, fmt.Sprintf("the service config of %q is invalid: %s", c.Service, inventory.Reason(err)),
				call("rollcall config set", c.Service), call("rollcall config rm", c.Service)))
		}
	}
	return found
}

func unknownConfigFields(f *Facts) (found []Finding) {
	for _, c := range f.Configs {
		if fields := f.UnknownFields(c.JSON); len(fields) > 0 {
			found = append(found, ofConfig(c, fmt.Sprintf("the service config of %q has %s that gRPC does not know: %s", c.Service,
				plural.Form(len(fields), "a field", "fields"), strings.Join(fields, ", ")), call("rollcall config set", c.Service)))
		}
	}
	return found
}

func orphanConfigs(f *Facts) (found []Finding) {
	services := make(map[string]bool)
	for _, s := range f.Services {
		for _, row := range s.Rows { // a service is every prefix of its keys
			for name := row.Key; strings.Contains(name, "/"); {
				name, _ = rollcall.SplitKey(name)
				services[name] = true
			}
		}
	}
	for _, c := range f.Configs {
		if !services[c.Service] {
			found = append(found, ofConfig(c, fmt.Sprintf("there is a service config for %q, which has no endpoints", c.Service),
				call("rollcall config rm", c.Service)))
		}
	}
	return found
}

func ofConfig(c *rollcall.ServiceConfig, what string, commands ...[]string) Finding {
	key := rollcall.ConfigPrefix + c.Service
	return Finding{Service: c.Service, Keys: []Key{{key, inventory.Base64(key)}}, What: what, Commands: commands}
}

func empty(f *Facts) []Finding {
	return f.eachService(func(s Service) []Finding {
		if len(s.where(usable)) > 0 {
			return nil
		}
		return []Finding{{Service: s.Name, What: fmt.Sprintf("service %q has no endpoint that clients can call", s.Name),
			Commands: calls("rollcall history", s.Name)}}
	})
}

func allDraining(f *Facts) []Finding {
	return f.eachService(func(s Service) []Finding {
		rows := s.where(is(inventory.Draining))
		if len(rows) == 0 || len(s.where(is(inventory.Serving))) > 0 {
			return nil
		}
		finding := ofService(s.Name, rows, "no endpoint is serving; %s draining", addr)
		finding.Commands = calls("rollcall undrain --selector status=draining", s.Name)
		return []Finding{finding}
	})
}

func drainingZones(f *Facts) []Finding {
	return f.eachService(func(s Service) (found []Finding) {
		serving, draining := make(map[string]bool), make(map[string][]*inventory.Instance)
		for _, row := range s.Rows {
			switch row.Status {
			case inventory.Serving:
				serving[row.Zone] = true
			case inventory.Draining:
				draining[row.Zone] = append(draining[row.Zone], row)
			}
		}
		for _, zone := range slices.Sorted(maps.Keys(draining)) {
			if zone == "" || serving[zone] || len(serving) == 0 { // service-draining tells where none serves
				continue
			}
			finding := ofService(s.Name, draining[zone], fmt.Sprintf("no endpoint in zone %s is serving; %%s draining", escapePercent(fmt.Sprintf("%q", zone))), addr)
			command := call("rollcall undrain --selector status=draining", s.Name)
			finding.Commands = [][]string{slices.Insert(command, 2, "--selector", "zone="+zone)}
			found = append(found, finding)
		}
		return found
	})
}
