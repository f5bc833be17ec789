// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall"
)

// Service counts the keys of one service, by status.
type Service struct {
	Service       string   `json:"service"`
	ServiceBase64 string   `json:"serviceBase64,omitempty"` // where the name is not UTF-8
	Instances     int      `json:"instances"`               // all of them
	Serving       int      `json:"serving"`
	Draining      int      `json:"draining"`
	Invalid       int      `json:"invalid"`
	Disallowed    int      `json:"disallowed"`
	Retained      int      `json:"retained,omitempty"`
	Zones         []string `json:"zones"`       // of its endpoints, sorted, without ""
	ModRevision   int64    `json:"modRevision"` // the last write of a key that it has
}

// maxShownZones bounds the zones that a table names: they are others' text, of any number.
const maxShownZones = 10

// ShownZones are the zones for a table, perhaps with "and N more" as the last.
func (s Service) ShownZones() []string {
	if more := len(s.Zones) - maxShownZones; more > 0 {
		return append(slices.Clone(s.Zones[:maxShownZones]), fmt.Sprintf("and %d more", more))
	}
	return s.Zones
}

// LeftOut is the number of keys that clients leave out.
func (s Service) LeftOut() int { return s.Invalid + s.Disallowed }

// Services counts the keys of each service of a snapshot, sorted by name. A key is split at its last
// "/"; one without is of no service. The result is never nil.
func Services(snap *rollcall.Snapshot) []Service {
	c := newCounting()
	for inst := range snap.All() {
		attributes := inst.Attributes()
		status, _ := statusOf(inst.Addr, attributes.Draining)
		c.count(serviceOf(inst.Key), status, inst.ModRevision, attributes.Locality.Zone)
	}
	for _, inst := range snap.Retained() {
		c.count(serviceOf(inst.Key), Retained, inst.ModRevision, inst.Attributes().Locality.Zone)
	}
	for _, i := range snap.Invalid() {
		c.count(serviceOf(i.Key), Invalid, i.ModRevision, "")
	}
	return c.sorted()
}

// Count is Services of rows that are there already, made with SplitKey.
func Count(rows []*Instance) []Service {
	c := newCounting()
	for _, row := range rows {
		c.count(row.Service, row.Status, row.ModRevision, row.Zone)
	}
	return c.sorted()
}

func (c *counting) sorted() []Service {
	list := make([]Service, 0, len(c.services))
	for _, service := range c.services {
		slices.Sort(service.Zones)
		list = append(list, *service)
	}
	slices.SortFunc(list, func(a, b Service) int { return strings.Compare(a.Service, b.Service) })
	return list
}

func serviceOf(key string) string {
	name, _ := rollcall.SplitKey(key)
	return name
}

type counting struct {
	services map[string]*Service
	latest   *Service // most keys are of the same service as the key before
	zones    map[zoneOf]bool
}

// zoneOf is a zone of a service.
type zoneOf struct{ service, zone string }

func newCounting() *counting {
	return &counting{services: make(map[string]*Service), zones: make(map[zoneOf]bool)}
}

func (c *counting) count(name string, status Status, modRevision int64, zone string) {
	if name == "" {
		return
	}
	if c.latest == nil || c.latest.Service != name {
		c.latest = c.services[name]
	}
	s := c.latest
	if s == nil {
		s = &Service{Service: name, ServiceBase64: Base64(name), Zones: []string{}}
		c.services[name], c.latest = s, s
	}
	s.Instances++
	switch status {
	case Serving:
		s.Serving++
	case Draining:
		s.Draining++
	case Invalid:
		s.Invalid++
	case Disallowed:
		s.Disallowed++
	case Retained:
		s.Retained++
	}
	s.ModRevision = max(s.ModRevision, modRevision)
	if of := (zoneOf{name, zone}); zone != "" && !c.zones[of] {
		c.zones[of] = true
		s.Zones = append(s.Zones, zone)
	}
}
