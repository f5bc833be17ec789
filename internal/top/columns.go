// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package top

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// serviceRow is a service, and how many changes a second it sees.
type serviceRow struct {
	inventory.Service
	rate float64
}

func serviceColumns() []column[serviceRow] {
	count := func(title string, of func(serviceRow) int) column[serviceRow] {
		return column[serviceRow]{title, func(s serviceRow) string { return number(of(s)) }, most(of)}
	}
	return []column[serviceRow]{
		{"SERVICE", func(s serviceRow) string { return s.Service.Service }, by(func(s serviceRow) string { return s.Service.Service })},
		count("INSTANCES", func(s serviceRow) int { return s.Instances }),
		{"SERVING", func(s serviceRow) string { return strconv.Itoa(s.Serving) }, by(func(s serviceRow) int { return s.Serving })},
		count("DRAINING", func(s serviceRow) int { return s.Draining }),
		count("INVALID", func(s serviceRow) int { return s.LeftOut() }),
		{"CHANGES/S", func(s serviceRow) string { return rateText(s.rate) }, most(func(s serviceRow) float64 { return s.rate })},
		{"ZONES", zones, by(zones)},
	}
}

func (m *Model) instanceColumns() []column[*inventory.Instance] {
	type row = *inventory.Instance
	return []column[row]{
		{"ID", func(i row) string { return i.ID }, by(func(i row) string { return i.ID })},
		{"ADDRESS", func(i row) string { return i.Addr }, by(func(i row) string { return i.Addr })},
		{"STATUS", func(i row) string { return string(i.Status) }, by(func(i row) string { return string(i.Status) })},
		{"WEIGHT", func(i row) string { return number(int(i.Weight)) }, most(func(i row) uint32 { return i.Weight })},
		{"ZONE", func(i row) string { return i.Zone }, by(func(i row) string { return i.Zone })},
		{"VERSION", func(i row) string { return i.Version }, by(func(i row) string { return i.Version })},
		{"AGE", func(i row) string { return inventory.Age(i.Started, m.now) }, func(a, b row) int { return a.Started.Compare(b.Started) }},
		{"METADATA", details, nil},
	}
}

// details is why clients leave a row out, or its other metadata.
func details(i *inventory.Instance) string {
	if i.Cause != "" {
		return i.Cause
	}
	fields := i.OtherFields()
	texts := make([]string, len(fields))
	for n, field := range fields {
		texts[n] = field.String()
	}
	return strings.Join(texts, " ")
}

func zones(s serviceRow) string { return strings.Join(s.ShownZones(), ",") }

// number returns a count, "" for 0: others than that are to be seen.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func rateText(perSecond float64) string {
	if perSecond == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", perSecond)
}
