// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Selector picks instances by what their metadata says. The zero value takes all.
type Selector struct {
	query string
	want  []fieldValues
}

// fieldValues is a field and the values that it may have.
type fieldValues struct {
	field  string
	values []string
}

// selectable are the fields of Attributes that a Selector knows, as text.
var selectable = map[string]func(Attributes) string{
	"weight":  func(a Attributes) string { return strconv.FormatUint(uint64(a.Weight), 10) },
	"region":  func(a Attributes) string { return a.Region },
	"zone":    func(a Attributes) string { return a.Zone },
	"subzone": func(a Attributes) string { return a.Subzone },
	"version": func(a Attributes) string { return a.Version },
	"status":  Attributes.Status,
}

// ParseSelector reads a URL's query, such as "version=v2&zone=eu-1&zone=eu-2": every field
// that is named must have a value that is given for it. Fields are weight, region, zone,
// subzone, version and status; an instance without one has its default, for the strings "".
// Anything else is an *InputError.
func ParseSelector(query string) (Selector, error) {
	fields, err := url.ParseQuery(query)
	if err != nil {
		return Selector{}, inputError("selector", query, "it is no query: %v", err)
	}
	var s Selector
	for field, values := range fields {
		if selectable[field] == nil {
			return Selector{}, inputError("selector", query, "unknown field %q; want weight, region, zone, subzone, version or status", field)
		}
		for _, v := range values {
			if err := checkSelected(field, v); err != nil {
				return Selector{}, inputError("selector", query, "%v", err)
			}
		}
		slices.Sort(values)
		fields[field] = slices.Compact(values)
		s.want = append(s.want, fieldValues{field, fields[field]})
	}
	slices.SortFunc(s.want, func(a, b fieldValues) int { return strings.Compare(a.field, b.field) })
	s.query = fields.Encode()
	return s, nil
}

func checkSelected(field, value string) error {
	switch field {
	case "weight":
		if w, err := strconv.ParseUint(value, 10, 32); err != nil || w == 0 || strconv.FormatUint(w, 10) != value {
			return fmt.Errorf("weight is %q; want a whole number from 1 to 4294967295", value)
		}
	case "status":
		if value != StatusServing && value != StatusDraining {
			return fmt.Errorf("status is %q; want %q or %q", value, StatusServing, StatusDraining)
		}
	}
	return nil
}

// String returns the selector as a query, the same for equal ones; "" takes all.
func (s Selector) String() string { return s.query }

// Takes says whether the selector takes an instance.
func (s Selector) Matches(inst *Instance) bool {
	if len(s.want) == 0 {
		return true
	}
	a := inst.Attributes()
	for _, w := range s.want {
		if !slices.Contains(w.values, selectable[w.field](a)) {
			return false
		}
	}
	return true
}
