// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/healthcheck"
)

// Config is what a services file says.
type Config struct {
	Services         []Service // each key once
	SelfPreservation bool      // nothing is taken out when all checks fail
}

// Service is an endpoint to keep registered while its checks pass.
type Service struct {
	Service  string
	Endpoint rollcall.Endpoint // the metadata is a json.RawMessage, or nil
	Settings
}

func (s *Service) key() string { return rollcall.Key(s.Service, s.Endpoint.ID) }

// equal reports whether two services are the same in all that the file says.
func (s *Service) equal(o *Service) bool {
	return reflect.DeepEqual(s, o)
}

// Settings are those of an endpoint's lease and checks.
type Settings struct {
	Checks                 []string // see healthcheck.Parse
	TTL, Interval, Timeout time.Duration
	Fall, Rise             int
}

// settings are the text of Settings, in an entry or at the top of the file for all entries.
type settings struct {
	Checks   []string `json:"checks"`
	TTL      string   `json:"ttl"`
	Interval string   `json:"interval"`
	Timeout  string   `json:"timeout"`
	Fall     *int     `json:"fall"`
	Rise     *int     `json:"rise"`
}

// defaults apply where the file gives nothing. There is no default check: without one an endpoint
// would stay, whatever becomes of its server.
var defaults = Settings{TTL: 10 * time.Second, Interval: healthcheck.DefaultInterval, Timeout: healthcheck.DefaultTimeout,
	Fall: healthcheck.DefaultFall, Rise: healthcheck.DefaultRise}

// What a TTL may be: the most is how long endpoints whose agent is dead mislead clients.
const (
	minTTL = time.Second
	maxTTL = 24 * time.Hour
)

// over returns Settings with what the text gives; refuse is told what is wrong with it.
func (t settings) over(s Settings, refuse func(field string, err error)) Settings {
	if t.Checks != nil {
		s.Checks = t.Checks
	}
	for _, f := range []struct {
		name, text string
		to         *time.Duration
	}{{"ttl", t.TTL, &s.TTL}, {"interval", t.Interval, &s.Interval}, {"timeout", t.Timeout, &s.Timeout}} {
		if f.text == "" {
			continue
		}
		if d, err := time.ParseDuration(f.text); err == nil {
			*f.to = d
		} else {
			refuse(f.name, fmt.Errorf("%q is not a duration, such as 5s", f.text))
		}
	}
	if t.Fall != nil {
		s.Fall = *t.Fall
	}
	if t.Rise != nil {
		s.Rise = *t.Rise
	}
	if s.TTL < minTTL || s.TTL > maxTTL {
		refuse("ttl", fmt.Errorf("%v: must be from %v to %v", s.TTL, minTTL, maxTTL))
	}
	return s
}

// options are how an endpoint is checked. What is wrong with the checks themselves parseChecks tells.
func (s *Service) options() healthcheck.Options {
	checks, _ := s.parseChecks()
	return healthcheck.Options{Service: s.Service, Endpoint: s.Endpoint, Checks: checks,
		Interval: s.Interval, Timeout: s.Timeout, Fall: s.Fall, Rise: s.Rise}
}

// validate tells refuse what is wrong with how an endpoint is checked.
func (s *Service) validate(refuse func(field string, err error)) {
	opts := s.options()
	all, _ := opts.Validate().(interface{ Unwrap() []error })
	if all == nil {
		return
	}
	for _, err := range all.Unwrap() {
		if input := (*rollcall.InputError)(nil); errors.As(err, &input) {
			refuse(input.Field, fmt.Errorf("%s: %s", input.Value, input.Reason))
		}
	}
}

// file is the text of a services file.
type file struct {
	settings
	SelfPreservation *bool             `json:"selfPreservation"`
	Services         []json.RawMessage `json:"services"`
}

// entry is the text of one of its services.
type entry struct {
	settings
	Service  string          `json:"service"`
	ID       string          `json:"id"`
	Address  string          `json:"address"`
	Metadata json.RawMessage `json:"metadata"`
}

// Parse reads a services file, YAML or JSON. It returns all that is wrong with it, an error for each
// that errors.Join has joined; each names the entry and the field.
func Parse(text []byte) (*Config, error) {
	plain, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, fmt.Errorf("not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	documents := yamlv3.NewDecoder(bytes.NewReader(text))
	_ = documents.Decode(new(yamlv3.Node)) // an empty file has none
	if documents.Decode(new(yamlv3.Node)) == nil {
		return nil, errors.New("it has a second document after ---; want one")
	}
	var f file
	if err := decodeStrictly(plain, &f); err != nil {
		return nil, err
	}
	if f.Services == nil {
		return nil, errors.New("services: the list of endpoints is missing; [] for none")
	}
	var wrong []error
	refuse := func(where string, err error) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", where, err))
		}
	}
	top := f.over(defaults, refuse)
	(&Service{Settings: top}).validate(refuse)
	if len(wrong) > 0 { // and would be with each entry
		return nil, errors.Join(wrong...)
	}
	c := &Config{SelfPreservation: f.SelfPreservation == nil || *f.SelfPreservation}
	numbers := make(map[string]int)
	for i, raw := range f.Services {
		var e entry
		err := decodeStrictly(raw, &e)
		name := fmt.Sprintf("services[%d]", i)
		if e.Service != "" {
			name += fmt.Sprintf(" (%s)", strings.TrimSpace(e.Service+" "+cmp.Or(e.ID, e.Address)))
		}
		if err != nil {
			refuse(name, err)
			continue
		}
		s := e.parse(top, func(field string, err error) { refuse(name+": "+field, err) })
		if first, twice := numbers[s.key()]; twice {
			refuse(name+": id", fmt.Errorf("services[%d] has the key %q already", first, s.key()))
		}
		numbers[s.key()] = i
		c.Services = append(c.Services, s)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return c, nil
}

// parse returns what an entry says; refuse is told what is wrong with it.
func (e *entry) parse(top Settings, refuse func(field string, err error)) Service {
	s := Service{Service: e.Service, Settings: e.over(top, refuse), Endpoint: rollcall.Endpoint{ID: cmp.Or(e.ID, e.Address), Addr: e.Address}}
	if len(e.Metadata) > 0 && !bytes.Equal(e.Metadata, []byte("null")) {
		s.Endpoint.Metadata = e.Metadata
	}
	if e.Address == "" {
		refuse("address", errors.New("it is missing: where clients reach the server, HOST:PORT"))
		return s
	}
	service, err := rollcall.ParseService(e.Service)
	refuse("service", err)
	if err == nil {
		s.Service = service
		refuse("id", rollcall.CheckKey(s.key()))
	}
	refuse("address", rollcall.HostPort(e.Address))
	_, err = rollcall.Encode(s.Endpoint.Addr, s.Endpoint.Metadata)
	refuse("metadata", err)
	s.validate(refuse)
	if len(s.Checks) == 0 {
		refuse("checks", errors.New("there are none; tcp is the least"))
	}
	_, err = s.parseChecks()
	refuse("checks", err)
	return s
}

func (s *Service) parseChecks() (checks []healthcheck.Check, err error) {
	for _, text := range s.Checks {
		check, failed := healthcheck.Parse(text, s.Endpoint.Addr)
		checks, err = append(checks, check), errors.Join(err, failed)
	}
	return checks, err
}

// decodeStrictly decodes JSON and refuses fields that it does not know. Names match exactly, which
// encoding/json does not ask for.
func decodeStrictly(text []byte, into any) error {
	err := json.Unmarshal(text, into)
	if mismatch := (*json.UnmarshalTypeError)(nil); errors.As(err, &mismatch) {
		if mismatch.Field == "" {
			return fmt.Errorf("want fields with values, got %s", mismatch.Value)
		}
		return fmt.Errorf("%s: want %v, got %s", mismatch.Field, mismatch.Type, mismatch.Value)
	} else if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	var given map[string]json.RawMessage
	_ = json.Unmarshal(text, &given) // it is an object, or null
	for _, field := range reflect.VisibleFields(reflect.TypeOf(into).Elem()) {
		delete(given, field.Tag.Get("json"))
	}
	if unknown := slices.Sorted(maps.Keys(given)); len(unknown) > 0 {
		return fmt.Errorf("unknown field %q", unknown[0])
	}
	return nil
}
