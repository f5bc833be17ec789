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
		remove(mapping, at, 2)
		return
	}
	old := mapping.Content[at+1]
	if text, err := settingText(old); err != nil || text != value {
		node := valueNode(name, value)
		if node.Kind == yaml.SequenceNode && old.Kind == node.Kind {
			setItems(old, node.Content)
			return
		}
		node.HeadComment, node.LineComment, node.FootComment = old.HeadComment, old.LineComment, old.FootComment
		mapping.Content[at+1] = node
	}
}

// setItems makes a list have other items. Those that it has already stay as they are written.
func setItems(list *yaml.Node, items []*yaml.Node) {
	at := func(items []*yaml.Node, item *yaml.Node) int {
		return slices.IndexFunc(items, func(other *yaml.Node) bool { return other.Value == item.Value })
	}
	for i, item := range items {
		if old := at(list.Content, item); old >= 0 {
			items[i] = list.Content[old]
		}
	}
	for i := len(list.Content) - 1; i >= 0; i-- {
		if at(items, list.Content[i]) < 0 {
			remove(list, i, 1)
		}
	}
	list.Content = items
}

// remove removes n nodes, a field of a mapping or an item of a list. The comment below them is not about them alone:
// it goes to what stands before them, or else after them.
func remove(from *yaml.Node, at, n int) {
	comment := from.Content[at].FootComment
	from.Content = slices.Delete(from.Content, at, at+n)
	switch {
	case comment == "":
	case at > 0:
		from.Content[at-n].FootComment = joinedComments(from.Content[at-n].FootComment, comment)
	case len(from.Content) > 0:
		from.Content[0].HeadComment = joinedComments(comment, from.Content[0].HeadComment)
	default:
		from.FootComment = joinedComments(comment, from.FootComment)
	}
}

func joinedComments(a, b string) string { return strings.Trim(a+"\n\n"+b, "\n") }

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

// save writes the file anew, readable by its owner alone, and reads it again. It reports whether the layout was kept.
func (f *contextFile) save() (saved *contextFile, laidOut bool, err error) {
	text, laidOut, err := f.changed()
	if err != nil {
		return nil, false, err
	}
	path := linkTarget(f.path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, false, err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".rollcall-*") // readable by its owner alone
	if err != nil {
		return nil, false, err
	}
	defer os.Remove(temporary.Name()) // if it is still there
	_, err = temporary.WriteString(text)
	if err := errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return nil, false, err
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return nil, false, err
	}
	saved, err = parseContexts(f.path, text)
	return saved, laidOut, err
}

// linkTarget follows links from a path, also one that leads nowhere yet.
func linkTarget(path string) string {
	for range 100 { // of a circle the file could not be read
		if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			path = filepath.Join(dir, filepath.Base(path))
		}
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return path
}

// changed returns the text with the changes. The encoder has spaces and empty lines of its own, so those of the file
// are put back, unless that would change what it says: it reports whether they are as they were.
func (f *contextFile) changed() (text string, laidOut bool, err error) {
	original, err := parseContexts(f.path, f.text)
	if err != nil {
		return "", false, err
	}
	before, err := original.encoded()
	if err != nil {
		return "", false, err
	}
	after, err := f.encoded()
	if err != nil {
		return "", false, err
	}
	if len(original.fields().Content) == 0 { // comments at most
		return after, true, nil
	}
	want, err := parseContexts(f.path, after)
	if err != nil {
		return "", false, err
	}
	text, laidOut = withLayout(f.text, before, after)
	got, err := parseContexts(f.path, text)
	if !laidOut || err != nil || got.current != want.current || !maps.EqualFunc(got.contexts, want.contexts, maps.Equal) {
		return after, after == before, nil
	}
	return text, true, nil
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
// quotes, with empty lines, and marks where the document begins and ends. It reports whether the text has no others.
func withLayout(text, before, after string) (changed string, ok bool) {
	if before == after {
		return text, true
	}
	if strings.Count(text, "\n") == strings.Count(text, "\r\n") && strings.Contains(text, "\n") {
		changed, ok = withLayout(strings.ReplaceAll(text, "\r\n", "\n"), before, after)
		return strings.ReplaceAll(changed, "\n", "\r\n"), ok
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	before = withoutEmpty(before)
	// Where a line that begins or ends at an offset of before does so in the text.
	begins, ends := make(map[int]int), map[int]int{0: 0}
	at, in, lines := 0, 0, slices.Collect(strings.Lines(before))
	for line := range strings.Lines(text) {
		switch strings.TrimRight(line, " \t\n") {
		case "", "...":
		case "---":
			ends[at] = in + len(line)
		default:
			if len(lines) == 0 || squeezed(line) != squeezed(lines[0]) {
				return "", false
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
	return changed, err == nil && len(lines) == 0
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
