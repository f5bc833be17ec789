// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/rollcall-grpc/rollcall"
)

// readManifest reads a manifest, JSON or YAML, strictly: a field that is unknown, given twice or of a wrong type is an
// error, with its line.
func readManifest(name string, text []byte) (m manifest, err error) {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		if text, err = yamlAsJSON(text); err != nil {
			return m, fail(exitUsage, "%s: %v", name, err)
		}
	}
	r := manifestReader{name: name, text: text, dec: json.NewDecoder(bytes.NewReader(text))}
	err = r.object(map[string]func() error{
		"apiVersion": r.constant(apiVersion),
		"kind":       r.constant(manifestKind),
		"services":   func() error { return r.list(func() error { return r.service(&m) }) },
	})
	if err != nil {
		return m, err
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return m, r.fail("something follows the end of the document")
	}
	return m, nil
}

// manifestReader reads a manifest token by token, to know where it is.
type manifestReader struct {
	name string
	text []byte
	dec  *json.Decoder
	keys map[string]bool // of services and instances so far
}

func (r *manifestReader) fail(format string, args ...any) error {
	line := 1 + bytes.Count(r.text[:r.dec.InputOffset()], []byte("\n"))
	return fail(exitUsage, "%s:%d: %s", r.name, line, fmt.Sprintf(format, args...))
}

func (r *manifestReader) service(m *manifest) error {
	var s manifestService
	err := r.object(map[string]func() error{
		"service":       r.into(&s.Service),
		"serviceBase64": r.into(&s.ServiceBase64),
		"config":        r.into(&s.Config),
		"configText":    r.into(&s.ConfigText),
		"configBase64":  r.into(&s.ConfigBase64),
		"instances":     func() error { return r.list(func() error { return r.instance(&s) }) },
	})
	if err != nil {
		return err
	}
	name, err := rollcall.ParseService(s.name())
	switch {
	case err != nil:
		return r.fail("%v", err)
	case name != s.name(), s.Service != nil && s.ServiceBase64 != nil:
		return r.fail("service %q: give one name, without a \"/\" at its end", s.name())
	case s.Config != nil && s.ConfigText != nil, s.ConfigBase64 != nil && (s.Config != nil || s.ConfigText != nil):
		return r.fail("service %q has more than one of config, configText and configBase64", name)
	}
	if _, err := s.config(); err != nil {
		return r.fail("the config of service %q is invalid: %v", name, err)
	}
	if err := rollcall.CheckKey(name + "/"); err != nil {
		return r.fail("%v", err)
	}
	for _, i := range s.Instances {
		if err := r.unique(rollcall.Key(name, i.id())); err != nil {
			return err
		}
	}
	m.Services = append(m.Services, s)
	return r.unique(s.configKey())
}

func (r *manifestReader) instance(s *manifestService) error {
	var i manifestInstance
	err := r.object(map[string]func() error{
		"id":          r.into(&i.ID),
		"idBase64":    r.into(&i.IDBase64),
		"addr":        r.into(&i.Addr),
		"metadata":    r.into(&i.Metadata),
		"value":       r.into(&i.Value),
		"valueBase64": r.into(&i.ValueBase64),
		"leased":      r.into(&i.Leased),
	})
	if err != nil {
		return err
	}
	forms := 0
	for _, given := range []bool{i.Addr != "", i.Value != nil, i.ValueBase64 != nil} {
		if given {
			forms++
		}
	}
	switch {
	case i.ID == nil && i.IDBase64 == nil && i.Addr == "", i.ID != nil && i.IDBase64 != nil:
		return r.fail("an instance needs one id, or an addr that serves as its id")
	case forms != 1, i.Metadata != nil && i.Addr == "":
		return r.fail("instance %q needs addr, with or without metadata, or value, or valueBase64", i.id())
	}
	if _, err := i.value(); err != nil {
		return r.fail("instance %q: %v", i.id(), err)
	}
	s.Instances = append(s.Instances, i)
	return nil
}

// unique fails for a key that was there before.
func (r *manifestReader) unique(key string) error {
	if r.keys[key] {
		return r.fail("%q is there twice", key)
	}
	if r.keys == nil {
		r.keys = make(map[string]bool)
	}
	r.keys[key] = true
	return nil
}

// object reads an object, each field by its function.
func (r *manifestReader) object(fields map[string]func() error) error {
	if err := r.open('{', "an object"); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for r.dec.More() {
		token, err := r.dec.Token()
		if err != nil {
			return r.fail("%v", err)
		}
		name := fmt.Sprint(token)
		read, known := fields[name]
		switch {
		case !known:
			return r.fail("unknown field %q%s", name, didYouMean(name, slices.Sorted(maps.Keys(fields))))
		case seen[name]:
			return r.fail("field %q is there twice", name)
		}
		seen[name] = true
		if err := read(); err != nil {
			return err
		}
	}
	return r.close()
}

func (r *manifestReader) list(item func() error) error {
	if err := r.open('[', "a list"); err != nil {
		return err
	}
	for r.dec.More() {
		if err := item(); err != nil {
			return err
		}
	}
	return r.close()
}

func (r *manifestReader) open(delim json.Delim, what string) error {
	switch token, err := r.dec.Token(); {
	case errors.Is(err, io.EOF):
		return r.fail("the end; want %s", what)
	case err != nil:
		return r.fail("%v", err)
	case token != delim:
		return r.fail("want %s, not %v", what, token)
	}
	return nil
}

func (r *manifestReader) close() error {
	if _, err := r.dec.Token(); err != nil {
		return r.fail("%v", err)
	}
	return nil
}

// into returns a function that reads a value.
func (r *manifestReader) into(value any) func() error {
	return func() error {
		var wrong *json.UnmarshalTypeError
		switch err := r.dec.Decode(value); {
		case errors.As(err, &wrong):
			return r.fail("want a %s, not a %s", wrong.Type, wrong.Value)
		case err != nil:
			return r.fail("%v", err)
		}
		return nil
	}
}

// constant returns a function that accepts one string.
func (r *manifestReader) constant(want string) func() error {
	return func() error {
		var got string
		if err := r.into(&got)(); err != nil || got == want {
			return err
		}
		return r.fail("this is %q; want %q, as rollcall export writes", got, want)
	}
}

// yamlAsJSON returns a YAML document as JSON in which every value stands on the line that it has in the YAML.
func yamlAsJSON(text []byte) ([]byte, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it is empty")
	case err != nil:
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if dec.Decode(new(yaml.Node)) == nil {
		return nil, errors.New("it has a second document after ---; want one")
	}
	w := lineWriter{line: 1}
	if err := w.node(doc.Content[0]); err != nil {
		return nil, err
	}
	return w.Bytes(), nil
}

type lineWriter struct {
	bytes.Buffer
	line int
}

// reach goes on to a line, where it is not there yet.
func (w *lineWriter) reach(line int) {
	for ; w.line < line; w.line++ {
		w.WriteByte('\n')
	}
}

func (w *lineWriter) node(n *yaml.Node) error {
	w.reach(n.Line)
	switch n.Kind {
	case yaml.MappingNode:
		w.WriteByte('{')
		for i := 0; i < len(n.Content); i += 2 {
			if n.Content[i].Kind != yaml.ScalarNode {
				return fmt.Errorf("line %d: the name of a field must be a string", n.Content[i].Line)
			}
			if i > 0 {
				w.WriteByte(',')
			}
			w.reach(n.Content[i].Line)
			w.string(n.Content[i].Value)
			w.WriteByte(':')
			if err := w.node(n.Content[i+1]); err != nil {
				return err
			}
		}
		w.WriteByte('}')
		return nil
	case yaml.SequenceNode:
		w.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				w.WriteByte(',')
			}
			if err := w.node(item); err != nil {
				return err
			}
		}
		w.WriteByte(']')
		return nil
	case yaml.ScalarNode:
		return w.scalar(n)
	}
	return fmt.Errorf("line %d: write it out: anchors and aliases are not read", n.Line)
}

// scalar writes a plain number, true, false and null as JSON has them, and all else as a string.
func (w *lineWriter) scalar(n *yaml.Node) error {
	plain := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	switch {
	case plain && json.Valid([]byte(n.Value)):
		w.WriteString(n.Value)
	case plain && n.ShortTag() == "!!null":
		w.WriteString("null")
	case plain && slices.Contains([]string{"!!bool", "!!int", "!!float"}, n.ShortTag()):
		return fmt.Errorf("line %d: %s is not how JSON has it; write it as JSON does, or in quotes", n.Line, n.Value)
	default:
		w.string(n.Value)
	}
	return nil
}

func (w *lineWriter) string(s string) {
	quoted, _ := json.Marshal(s)
	w.Write(quoted)
}
