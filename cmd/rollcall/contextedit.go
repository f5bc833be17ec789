// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"go.yaml.in/yaml/v3"
)

// The file of contexts is the user's: a change touches the lines that it is about, and leaves comments, order and
// spelling of all others as they are.

// fields returns the mapping of the file.
func (f *contextFile) fields() *yaml.Node { return asMapping(f.document.Content[0]) }

// all returns the mapping of the contexts.
func (f *contextFile) all() *yaml.Node { return within(f.fields(), "contexts") }

// makeCurrent makes a context the current one; "": none.
func (f *contextFile) makeCurrent(name string) {
	const field = "current-context"
	if fields := f.fields(); name != "" && fieldAt(fields, field) < 0 {
		fields.Content = append([]*yaml.Node{textNode(field), textNode(name)}, fields.Content...)
	} else {
		setField(fields, field, name)
	}
}

// rename gives a context another name.
func (f *contextFile) rename(from, to string) {
	all := f.all()
	all.Content[fieldAt(all, from)].SetString(to)
	if f.current == from {
		f.makeCurrent(to)
	}
}

// fieldAt returns where the name of a field is among the nodes of a mapping, -1 if it has no such field.
func fieldAt(mapping *yaml.Node, name string) int {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == name {
			return i
		}
	}
	return -1
}

// within returns the mapping that is the value of a field, which is added if it is absent.
func within(mapping *yaml.Node, name string) *yaml.Node {
	at := fieldAt(mapping, name)
	if at < 0 {
		at = len(mapping.Content)
		mapping.Content = append(mapping.Content, textNode(name), &yaml.Node{Kind: yaml.MappingNode})
	}
	return asMapping(mapping.Content[at+1])
}

// asMapping makes a mapping of a null.
func asMapping(node *yaml.Node) *yaml.Node {
	if node.Kind != yaml.MappingNode {
		node.Kind, node.Tag, node.Value = yaml.MappingNode, "", ""
	}
	return node
}

// setField sets a field to a value, or removes it if that is empty.
func setField(mapping *yaml.Node, name, value string) {
	at := fieldAt(mapping, name)
	switch {
	case at < 0 && value == "":
		return
	case at < 0:
		mapping.Content = append(mapping.Content, textNode(name), valueNode(name, value))
		return
	case value == "":
		mapping.Content = slices.Delete(mapping.Content, at, at+2)
		return
	}
	old := mapping.Content[at+1]
	if text, err := settingText(old); err != nil || text != value {
		node := valueNode(name, value)
		node.HeadComment, node.LineComment, node.FootComment = old.HeadComment, old.LineComment, old.FootComment
		if node.Kind == yaml.SequenceNode && old.Kind == node.Kind {
			node.Style = old.Style
		}
		mapping.Content[at+1] = node
	}
}

func textNode(text string) *yaml.Node {
	node := new(yaml.Node)
	node.SetString(text)
	return node
}

// valueNode is a setting as a file has it: endpoints are a list.
func valueNode(name, value string) *yaml.Node {
	if name != "endpoints" {
		return textNode(value)
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for endpoint := range strings.SplitSeq(value, ",") {
		list.Content = append(list.Content, textNode(endpoint))
	}
	return list
}

// save writes the file anew, readable by its owner alone, and reads it again.
func (f *contextFile) save() (*contextFile, error) {
	text, err := f.changed()
	if err != nil {
		return nil, err
	}
	path := f.path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".rollcall-*") // readable by its owner alone
	if err != nil {
		return nil, err
	}
	defer os.Remove(temporary.Name()) // if it is still there
	_, err = temporary.WriteString(text)
	if err := errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return nil, err
	}
	return parseContexts(f.path, text)
}

// changed returns the text with the changes. The encoder has spaces and empty lines of its own, so those of the file
// are put back, unless that would change what it says.
func (f *contextFile) changed() (string, error) {
	original, err := parseContexts(f.path, f.text)
	if err != nil {
		return "", err
	}
	before, err := original.encoded()
	if err != nil {
		return "", err
	}
	after, err := f.encoded()
	if err != nil {
		return "", err
	}
	want, err := parseContexts(f.path, after)
	if err != nil {
		return "", err
	}
	text := withLayout(f.text, before, after)
	got, err := parseContexts(f.path, text)
	if err != nil || got.current != want.current || !maps.EqualFunc(got.contexts, want.contexts, maps.Equal) {
		return after, nil
	}
	return text, nil
}

func (f *contextFile) encoded() (string, error) {
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if at := fieldAt(f.fields(), "contexts"); at >= 0 {
		if all := f.fields().Content[at+1]; all.Style&yaml.FlowStyle == 0 && len(all.Content) > 0 && all.Content[0].Column > 1 {
			encoder.SetIndent(all.Content[0].Column - 1)
		}
	}
	err := encoder.Encode(f.document)
	return text.String(), err
}

// withLayout makes the change from before to after in a text that has the lines of before, but with other spaces and
// quotes, and with empty lines. It returns after if the text has other lines than that.
func withLayout(text, before, after string) string {
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	before = withoutEmpty(before)
	// Where a line that begins or ends at an offset of before does so in the text.
	begins, ends := make(map[int]int), map[int]int{0: 0}
	at, in, lines := 0, 0, slices.Collect(strings.Lines(before))
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			if len(lines) == 0 || squeezed(line) != squeezed(lines[0]) {
				return after
			}
			begins[at] = in
			at += len(lines[0])
			ends[at] = in + len(line)
			lines = lines[1:]
		}
		in += len(line)
	}
	edits := udiff.Lines(before, withoutEmpty(after))
	for i, e := range edits {
		edits[i].Start, edits[i].End = ends[e.Start], ends[e.End]
		if e.Start < e.End {
			edits[i].Start = begins[e.Start]
		}
	}
	changed, err := udiff.Apply(text, edits)
	if err != nil || len(lines) > 0 {
		return after
	}
	return changed
}

// withoutEmpty returns a text without its empty lines.
func withoutEmpty(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			b.WriteString(line)
		}
	}
	return b.String()
}

// squeezed returns a line without spaces and quotes.
func squeezed(line string) string {
	return strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "", "'", "", `"`, "").Replace(line)
}
