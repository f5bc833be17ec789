// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// printYAML writes a document as YAML, with the fields and their order as in JSON.
func (a *app) printYAML(v any) error {
	text, err := yamlText(v)
	if err != nil {
		return err
	}
	return a.write(text)
}

func yamlText(v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber() // to leave numbers as they are
	y := yamlWriter{dec: dec}
	if err := y.value(0, false); err != nil {
		return "", err
	}
	return strings.TrimPrefix(y.text.String(), "\n"), nil
}

// yamlWriter writes the next values of a JSON text as YAML.
type yamlWriter struct {
	dec  *json.Decoder
	text strings.Builder
}

// value writes a value after "name:" or "-", at the indentation of what it has inside.
func (y *yamlWriter) value(indent int, inList bool) error {
	token, err := y.dec.Token()
	if err != nil {
		return err
	}
	switch token := token.(type) {
	case json.Delim:
		return y.inside(token, indent, inList)
	case string:
		y.text.WriteString(" " + yamlLines(token, indent) + "\n")
	case nil:
		y.text.WriteString(" null\n")
	default:
		fmt.Fprintf(&y.text, " %v\n", token)
	}
	return nil
}

// inside writes what is in an object or a list. An object in a list begins on the line of its "-".
func (y *yamlWriter) inside(open json.Delim, indent int, inList bool) error {
	if !y.dec.More() {
		y.text.WriteString(map[json.Delim]string{'{': " {}\n", '[': " []\n"}[open])
	} else if !inList {
		y.text.WriteString("\n")
	}
	for first := true; y.dec.More(); first = false {
		margin := strings.Repeat("  ", indent)
		if first && inList {
			margin = " "
		}
		y.text.WriteString(margin)
		if open == '[' {
			y.text.WriteString("-")
			if err := y.value(indent+1, true); err != nil {
				return err
			}
			continue
		}
		name, err := y.dec.Token()
		if err != nil {
			return err
		}
		y.text.WriteString(yamlString(fmt.Sprint(name)) + ":")
		if err := y.value(indent+1, false); err != nil {
			return err
		}
	}
	_, err := y.dec.Token() // the end
	return err
}

var (
	yamlPlain = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]*$`)
	yamlWord  = regexp.MustCompile(`(?i)^(true|false|yes|no|on|off|y|n|null)$`)
)

// yamlLines is yamlString for a value: one of several lines that can be printed keeps them.
func yamlLines(s string, indent int) string {
	if !strings.Contains(s, "\n") || strings.Trim(s, "\n ") != s || strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && unprintable(r) }) {
		return yamlString(s)
	}
	margin := "\n" + strings.Repeat("  ", indent)
	return "|-" + margin + strings.ReplaceAll(s, "\n", margin)
}

// yamlString returns a string in plain style where no reader can take it for something else,
// otherwise in double quotes. Go's escapes are YAML's.
func yamlString(s string) string {
	if yamlPlain.MatchString(s) && !yamlWord.MatchString(s) {
		return s
	}
	return strconv.Quote(s)
}
