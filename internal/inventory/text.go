// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Field is a field of the metadata: a string as it is, anything else as compact JSON.
type Field struct {
	Name  string // "" for metadata that is not an object
	Value string
}

// String returns name=value, the value quoted where it could be misread.
func (f Field) String() string {
	if f.Name == "" {
		return f.Value
	}
	value := f.Value
	if value == "" || strings.ContainsAny(value, " \"=") && !json.Valid([]byte(value)) {
		value = strconv.Quote(value)
	}
	return f.Name + "=" + value
}

// shown are the fields of the metadata that rows have a place for.
var shown = []string{"weight", "zone", "version", "status", "started"}

// OtherFields returns the fields of the metadata, in their order, that have no place of their own in
// a table: all but weight, zone, version, status and started, and these too where their value is
// invalid, since the row then has the default.
func (i Instance) OtherFields() (fields []Field) {
	dec := json.NewDecoder(bytes.NewReader(i.Metadata))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		if len(i.Metadata) == 0 {
			return nil
		}
		return []Field{{Value: fieldText(i.Metadata)}}
	}
	for dec.More() {
		name, err := dec.Token()
		var value json.RawMessage
		if err != nil || dec.Decode(&value) != nil {
			return fields // Metadata is valid JSON
		}
		field := Field{Name: fmt.Sprint(name), Value: fieldText(value)}
		if !slices.Contains(shown, field.Name) || i.fieldInvalid(field.Name) {
			fields = append(fields, field)
		}
	}
	return fields
}

func (i Instance) fieldInvalid(name string) bool {
	return slices.ContainsFunc(i.FieldErrors, func(e FieldError) bool { return e.Field == name })
}

func fieldText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil && !bytes.Equal(value, []byte("null")) {
		return text
	}
	var b bytes.Buffer
	if json.Compact(&b, value) != nil {
		return string(value)
	}
	return b.String()
}

// Age returns how long ago something began, "-" if that is not known.
func Age(started, now time.Time) string {
	if started.IsZero() {
		return "-"
	}
	return Duration(now.Sub(started))
}

// Duration returns a duration in two units at most, as coarse as is useful: 95s, 7m30s, 100m,
// 5h20m, 30h, 3d4h, 200d, 3y12d. A negative one, of clocks that differ, is 0s.
func Duration(d time.Duration) string {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	for _, step := range []struct {
		below, unit, rest time.Duration // rest 0: none
		name, restName    string
	}{
		{2 * time.Minute, time.Second, 0, "s", ""},
		{10 * time.Minute, time.Minute, time.Second, "m", "s"},
		{3 * time.Hour, time.Minute, 0, "m", ""},
		{8 * time.Hour, time.Hour, time.Minute, "h", "m"},
		{2 * day, time.Hour, 0, "h", ""},
		{8 * day, day, time.Hour, "d", "h"},
		{2 * year, day, 0, "d", ""},
		{8 * year, year, day, "y", "d"},
	} {
		if d >= step.below {
			continue
		}
		text := fmt.Sprintf("%d%s", max(d/step.unit, 0), step.name)
		if step.rest > 0 && d%step.unit >= step.rest {
			text += fmt.Sprintf("%d%s", d%step.unit/step.rest, step.restName)
		}
		return text
	}
	return fmt.Sprintf("%dy", d/year)
}
