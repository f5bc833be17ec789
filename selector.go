// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"net"
	"net/url"
	"slices"
	"strings"
)

// Selector selects instances by their metadata and their hosts. The zero value selects all.
type Selector struct {
	query string
	want  []fieldValues
}

// fieldValues is a field, by its index in fields, and the values that are selected.
type fieldValues struct {
	field  int
	values []string
}

// ParseSelector parses a URL's query, such as "version=v2&zone=eu-1&zone=eu-2". An instance is
// selected if each named field has one of the given values. The fields are weight, region,
// zone, subzone, version, status and host; a missing one has its default, "" for strings. A host is
// that of the metadata or that of the address, an IPv6 address with brackets or without. Anything
// else is an *InputError.
func ParseSelector(query string) (Selector, error) {
	named, err := url.ParseQuery(query)
	if err != nil {
		return Selector{}, inputError("selector", query, "not a query: %v", err)
	}
	var s Selector
	for name, values := range named {
		i := indexField([]byte(name))
		if i < 0 || !fields[i].selects {
			return Selector{}, inputError("selector", query, "unknown field %q; want weight, region, zone, subzone, version, status or host", name)
		}
		for n, v := range values {
			if i == fieldHost {
				values[n] = withoutBrackets(v)
			}
			if f := &fields[i]; f.valid != nil && !f.valid([]byte(v)) {
				return Selector{}, inputError("selector", query, "%s is %q; want %s", name, v, f.want)
			}
		}
		slices.Sort(values)
		named[name] = slices.Compact(values)
		s.want = append(s.want, fieldValues{i, named[name]})
	}
	s.query = named.Encode()
	return s, nil
}

// String returns the selector as a query, the same for equal selectors; "" selects all.
func (s Selector) String() string { return s.query }

// Matches reports whether the selector selects an instance.
func (s Selector) Matches(inst *Instance) bool {
	if len(s.want) == 0 {
		return true
	}
	var texts fieldTexts
	texts.read(inst.Metadata)
	for _, w := range s.want {
		if !slices.Contains(w.values, texts.get(w.field)) && (w.field != fieldHost || !w.hasHost(inst.Addr)) {
			return false
		}
	}
	return true
}

// hasHost reports whether the host of an address is one of the values.
func (w fieldValues) hasHost(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && slices.Contains(w.values, host)
}

// withoutBrackets returns an IPv6 address as SplitHostPort does, and other hosts as they are.
func withoutBrackets(host string) string {
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		return strings.TrimSuffix(inner, "]")
	}
	return host
}
