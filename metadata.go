// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/jsonscan"
)

// Attributes are the fields of an object in Metadata that mean something to
// Rollcall. A field of a wrong type or range keeps its default and is listed in
// Invalid; the endpoint itself stays.
type Attributes struct {
	Weight   uint32   // "weight", 1 to 2^32-1; default 1
	Locality Locality // "region", "zone", "subzone"
	Version  string   // "version"
	HashKey  string   // "hash_key": where ring_hash puts the endpoint; default its id
	Draining bool     // "status": "draining"; default "serving"

	// What people and monitoring ask for; clients make nothing of it. A Registrar sets the first two.
	Started     time.Time // "started", as in RFC 3339: when the process began; default zero
	Host        string    // "host": the name of the machine
	MetricsPort uint16    // "metrics_port", 1 to 65535: where Prometheus scrapes it; default 0

	Invalid []FieldError
}

// FieldError is a field of the metadata with an invalid value.
type FieldError struct {
	Field  string // JSON name
	Reason string
}

func (e FieldError) Error() string { return fmt.Sprintf("metadata field %q: %s", e.Field, e.Reason) }

// The values of the metadata field "status".
const (
	StatusServing  = "serving"
	StatusDraining = "draining"
)

// Status returns the field "status" as text.
func (a Attributes) Status() string {
	if a.Draining {
		return StatusDraining
	}
	return StatusServing
}

// The fields of the metadata, by their index in fields.
const (
	fieldWeight = iota
	fieldRegion
	fieldZone
	fieldSubzone
	fieldVersion
	fieldHashKey
	fieldStatus
	fieldStarted
	fieldHost
	fieldMetricsPort
	numFields
)

// fields describes the fields that mean something to Rollcall: both parsers and the
// Selector follow this table. All values are handled as text, a number in its shortest
// decimal form.
var fields = [numFields]struct {
	name     string
	number   bool                   // in JSON; otherwise a string
	standard string                 // what an absent or empty field stands for, and null but for numbers
	want     string                 // describes valid values
	valid    func(text []byte) bool // nil: any text
	selects  bool                   // a Selector may name it
}{
	fieldWeight:  {name: "weight", number: true, standard: "1", want: "a whole number from 1 to 4294967295", valid: validWeight, selects: true},
	fieldRegion:  {name: "region", want: "a string", selects: true},
	fieldZone:    {name: "zone", want: "a string", selects: true},
	fieldSubzone: {name: "subzone", want: "a string", selects: true},
	fieldVersion: {name: "version", want: "a string", selects: true},
	fieldHashKey: {name: "hash_key", want: "a string"},
	fieldStatus:  {name: "status", standard: StatusServing, want: `"serving" or "draining"`, valid: validStatus, selects: true},

	fieldStarted:     {name: "started", want: "a time such as 2006-01-02T15:04:05Z", valid: validTime},
	fieldHost:        {name: "host", want: "a string", selects: true},
	fieldMetricsPort: {name: "metrics_port", number: true, want: "a port from 1 to 65535", valid: validPort},
}

func validWeight(text []byte) bool { return parsePositive(text) > 0 }

func validStatus(text []byte) bool {
	return string(text) == StatusServing || string(text) == StatusDraining
}

func validTime(text []byte) bool {
	_, err := time.Parse(time.RFC3339, string(text))
	return err == nil
}

func validPort(text []byte) bool {
	port := parsePositive(text)
	return port > 0 && port <= math.MaxUint16
}

// parsePositive returns 0 for what is not the shortest form of a positive number below 2^32.
func parsePositive(text []byte) uint32 {
	n := uint64(0)
	for _, c := range text {
		if c < '0' || c > '9' || n == 0 && c == '0' || n > math.MaxUint32 {
			return 0
		}
		n = 10*n + uint64(c-'0')
	}
	if n > math.MaxUint32 {
		return 0
	}
	return uint32(n)
}

// fieldTexts has the text of each field, empty if the default applies.
type fieldTexts [numFields][]byte

func (t *fieldTexts) get(field int) string {
	if len(t[field]) == 0 {
		return fields[field].standard
	}
	return string(t[field])
}

// read reads metadata, valid JSON of any kind, into the zero value.
func (t *fieldTexts) read(metadata json.RawMessage) (invalid []FieldError) {
	if t.scan(metadata) {
		return nil
	}
	*t = fieldTexts{}
	return t.unmarshal(metadata)
}

// scan does what unmarshal does, some twenty times faster, for metadata of the usual form
// in which all fields are valid; it reports whether the metadata is of that kind.
func (t *fieldTexts) scan(metadata []byte) bool {
	s := jsonscan.New(metadata, 0)
	for s.Enter('{'); s.Next('}'); {
		i := indexField(s.Name())
		if i < 0 {
			s.Raw()
			continue
		}
		f, text := &fields[i], []byte(nil)
		if f.number {
			text = s.Digits()
		} else {
			text = s.Text()
		}
		if t[i] != nil || f.valid != nil && len(text) > 0 && !f.valid(text) {
			s.Fail()
		}
		t[i] = text
	}
	return s.Done()
}

// findField returns what scan finds for one field, some five times faster than for all, where
// nothing in the metadata is nested or escaped: a name in quotes before a colon is then that of a
// field. It takes for granted that metadata is JSON. See BenchmarkWeight.
func findField(metadata []byte, field int) (text []byte, ok bool) {
	if bytes.IndexByte(metadata, '\\') >= 0 {
		return nil, false
	}
	f, name := &fields[field], fieldNames[field]
	before, rest, found := bytes.Cut(metadata, name)
	switch {
	case !found:
		return nil, true
	case !bytes.HasSuffix(before, []byte(`"`)), !bytes.HasPrefix(rest, []byte(`":`)), bytes.Contains(rest, name), // another word, or twice
		bytes.LastIndexByte(before, '{') != 0, bytes.IndexByte(rest, '{') >= 0:
		return nil, false
	}
	s := jsonscan.New(metadata, len(before)+len(name)+len(`":`))
	if f.number {
		text = s.Digits()
	} else {
		text = s.Text()
	}
	ok = s.Next('}') || s.Done()
	return text, ok && (f.valid == nil || len(text) == 0 || f.valid(text))
}

// fieldNames are the names of the fields.
var fieldNames = func() (names [numFields][]byte) {
	for i := range fields {
		names[i] = []byte(fields[i].name)
	}
	return names
}()

func indexField(name []byte) int {
	for i := range fields {
		if string(name) == fields[i].name {
			return i
		}
	}
	return -1
}

func (t *fieldTexts) unmarshal(metadata json.RawMessage) (invalid []FieldError) {
	if len(metadata) == 0 || metadata[0] != '{' {
		return nil
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(metadata, &raw); err != nil {
		return nil
	}
	for i := range fields {
		f := &fields[i]
		value, ok := raw[f.name]
		if !ok {
			continue
		}
		text, ok := unmarshalField(value, f.number)
		if !ok || f.valid != nil && (f.number || len(text) > 0) && !f.valid(text) {
			invalid = append(invalid, FieldError{Field: f.name, Reason: "want " + f.want})
			continue
		}
		t[i] = text
	}
	return invalid
}

// unmarshalField returns the text of a JSON value, and whether it is a number or a string
// as asked for. A null is 0 or "".
func unmarshalField(value json.RawMessage, number bool) (text []byte, ok bool) {
	if number {
		var n float64
		err := json.Unmarshal(value, &n)
		return strconv.AppendFloat(nil, n, 'f', -1, 64), err == nil
	}
	var s string
	err := json.Unmarshal(value, &s)
	return []byte(s), err == nil
}

// WithField returns metadata with a field set to a value, or without it where the value
// is nil; other fields stay as they are, and an object without any becomes nil. Metadata
// that is neither null nor an object has no fields: an *InputError.
func WithField(metadata json.RawMessage, name string, value any) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if len(metadata) > 0 {
		if err := json.Unmarshal(metadata, &fields); err != nil {
			return nil, inputError("metadata", string(metadata), "only an object can carry %q", name)
		}
	}
	if fields == nil {
		fields = make(map[string]json.RawMessage)
	}
	delete(fields, name)
	if value != nil {
		data, err := json.Marshal(value)
		if err != nil {
			return nil, inputError("metadata field", name, "it cannot be written as JSON: %v", err)
		}
		fields[name] = data
	}
	if len(fields) == 0 {
		return nil, nil
	}
	return json.Marshal(fields)
}

// Locality is where an endpoint or a client runs, from the outermost part to the
// innermost, as in xDS. An empty part is unknown.
type Locality struct {
	Region  string
	Zone    string
	Subzone string
}

// LocalityFromEnv returns the locality that the environment names: ROLLCALL_REGION,
// ROLLCALL_ZONE and ROLLCALL_SUBZONE.
func LocalityFromEnv() Locality {
	return Locality{
		Region:  os.Getenv("ROLLCALL_REGION"),
		Zone:    os.Getenv("ROLLCALL_ZONE"),
		Subzone: os.Getenv("ROLLCALL_SUBZONE"),
	}
}

// String returns the locality in the form that gRPC's xDS uses in metrics (gRFC A78):
// {region="eu", zone="eu-1", sub_zone=""}.
func (l Locality) String() string {
	return fmt.Sprintf("{region=%q, zone=%q, sub_zone=%q}", l.Region, l.Zone, l.Subzone)
}

// Distance returns how far another locality is from l: the number of parts, from region to
// subzone, that remain from the first that differs, 0 to 3. Empty parts of l do not matter: a
// caller that knows nothing of where it is has no distance from anywhere.
func (l Locality) Distance(o Locality) int {
	switch {
	case l.Region != "" && l.Region != o.Region:
		return 3
	case l.Zone != "" && l.Zone != o.Zone:
		return 2
	case l.Subzone != "" && l.Subzone != o.Subzone:
		return 1
	}
	return 0
}
