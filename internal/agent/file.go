// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/healthcheck"
)

// Config is what a services file says.
type Config struct {
	Services       []Service // each key once
	SelfProtection bool      // nothing is taken out when all checks fail
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
var defaults = Settings{TTL: 10 * time.Second, Interval: 5 * time.Second, Timeout: time.Second, Fall: 3, Rise: 2}

// over returns Settings with what the text gives; refuse is told what is wrong with it.
func (t settings) over(s Settings, refuse func(field string, err error)) Settings {
	if t.Checks != nil {
		s.Checks = t.Checks
	}
	for _, f := range []struct {
		name, text string
		least      time.Duration
		to         *time.Duration
	}{
		{"ttl", t.TTL, time.Second, &s.TTL},
		{"interval", t.Interval, 100 * time.Millisecond, &s.Interval},
		{"timeout", t.Timeout, time.Millisecond, &s.Timeout},
	} {
		if f.text == "" {
			continue
		}
		d, err := time.ParseDuration(f.text)
		if err != nil || d < f.least {
			refuse(f.name, fmt.Errorf("%q is not a duration of at least %v, such as 5s", f.text, f.least))
		}
		*f.to = d
	}
	for _, f := range []struct {
		name  string
		given *int
		to    *int
	}{{"fall", t.Fall, &s.Fall}, {"rise", t.Rise, &s.Rise}} {
		if f.given == nil {
			continue
		}
		if *f.given < 1 {
			refuse(f.name, fmt.Errorf("%d: must be at least 1", *f.given))
		}
		*f.to = *f.given
	}
	return s
}

// file is the text of a services file.
type file struct {
	settings
	SelfProtection *bool             `json:"selfProtection"`
	Services       []json.RawMessage `json:"services"`
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
	c := &Config{SelfProtection: f.SelfProtection == nil || *f.SelfProtection}
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
	refuse("metadata", s.checkMetadata())
	if len(s.Checks) == 0 {
		refuse("checks", errors.New("there are none; tcp is the least"))
	}
	_, err = s.parseChecks()
	refuse("checks", err)
	return s
}

// checkMetadata returns why the metadata cannot be written, or cannot be marked as draining.
func (s *Service) checkMetadata() error {
	metadata := s.metadata()
	if len(metadata) > 0 && metadata[0] != '{' {
		return errors.New("it must be an object: a failed check sets \"status\" in it")
	}
	_, err := rollcall.Encode(s.Endpoint.Addr, s.Endpoint.Metadata)
	return err
}

func (s *Service) parseChecks() (checks []healthcheck.Check, err error) {
	for _, text := range s.Checks {
		check, failed := healthcheck.Parse(text, s.Endpoint.Addr)
		checks, err = append(checks, check), errors.Join(err, failed)
	}
	return checks, err
}

// metadata returns an endpoint's metadata as the file has it.
func (s *Service) metadata() []byte {
	raw, _ := s.Endpoint.Metadata.(json.RawMessage)
	return raw
}

// decodeStrictly decodes JSON and refuses fields that it does not know.
func decodeStrictly(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if mismatch := (*json.UnmarshalTypeError)(nil); errors.As(err, &mismatch) {
		if mismatch.Field == "" {
			return fmt.Errorf("want fields with values, got %s", mismatch.Value)
		}
		return fmt.Errorf("%s: want %v, got %s", mismatch.Field, mismatch.Type, mismatch.Value)
	} else if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}
