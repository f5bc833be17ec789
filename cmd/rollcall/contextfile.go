// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// contextFile is a file of contexts: settings under the names of their flags, for each cluster.
type contextFile struct {
	path     string
	current  string
	contexts map[string]map[string]string // with absolute names of files

	text     string     // of the file
	document *yaml.Node // what it is, and what changes are made in
}

// fileSettings are the settings that are names of files, relative to the file that has the context.
var fileSettings = []string{"cacert", "cert", "key", "password-file"}

// unkeptSettings are those that no context has, and why.
var unkeptSettings = map[string]string{
	"password":       "passwords are not kept in it; use password-file",
	"auth-jwt-token": "secrets are not kept in it; use ROLLCALL_AUTH_JWT_TOKEN",
	"debug":          "it is for one command",
	"hex":            "rollcall does not support it",
}

// contextFilePath returns where the contexts are, and whether the environment names the file.
func (a *app) contextFilePath() (path string, named bool, err error) {
	if path, _ := a.getenv("ROLLCALL_CONFIG"); path != "" {
		return path, true, nil
	}
	if a.configDir == nil {
		return "", false, nil
	}
	dir, err := a.configDir()
	if err != nil {
		return "", false, fmt.Errorf("where contexts are kept: %w; set ROLLCALL_CONFIG to a file", err)
	}
	return filepath.Join(dir, "rollcall", "config.yaml"), false, nil
}

// loadContexts reads a file of contexts. One that is not there has none.
func loadContexts(path string) (*contextFile, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return parseContexts(path, string(text))
}

// parseContexts reads the text of a file of contexts.
func parseContexts(path, text string) (*contextFile, error) {
	f := &contextFile{path: path, contexts: make(map[string]map[string]string), text: text, document: new(yaml.Node)}
	documents, second := yaml.NewDecoder(strings.NewReader(text)), new(yaml.Node)
	if err := documents.Decode(f.document); errors.Is(err, io.EOF) { // nothing but comments
		f.document = &yaml.Node{Kind: yaml.DocumentNode, HeadComment: strings.TrimSpace(text), Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
		return f, nil
	} else if err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := documents.Decode(second); err == nil {
		return nil, fmt.Errorf("%s: line %d: another YAML document begins; a file of contexts is one", path, second.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	err := eachField(f.document.Content[0], func(name string, value *yaml.Node) (err error) {
		switch name {
		case "current-context":
			f.current, err = settingText(value)
			return err
		case "contexts":
			return eachField(value, f.addContext)
		}
		return fmt.Errorf("unknown field %q%s", name, didYouMean(name, []string{"current-context", "contexts"}))
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func (f *contextFile) addContext(name string, value *yaml.Node) error {
	context := make(map[string]string)
	f.contexts[name] = context
	return eachField(value, func(setting string, value *yaml.Node) error {
		text, err := settingText(value)
		if err != nil {
			return err
		}
		if err := checkSetting(setting, text); err != nil {
			return err
		}
		if slices.Contains(fileSettings, setting) && text != "" && !filepath.IsAbs(text) {
			text = filepath.Join(filepath.Dir(f.path), text)
		}
		context[setting] = text
		return nil
	})
}

// checkSetting refuses what a context cannot hold.
func checkSetting(name, value string) error {
	switch why := unkeptSettings[name]; {
	case why != "":
		return fmt.Errorf("a context has no %q: %s", name, why)
	case !slices.Contains(settingNames, name):
		return fmt.Errorf("unknown setting %q%s", name, didYouMean(name, settingNames))
	case name == "user" && strings.Contains(value, ":"):
		return errors.New(`a context has no password, not even in "user"; use password-file`)
	}
	return nil
}

// eachField calls visit with the fields of a YAML mapping. Errors begin with the line.
func eachField(node *yaml.Node, visit func(name string, value *yaml.Node) error) error {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return nil
	}
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: want fields, such as \"endpoints: 127.0.0.1:2379\"", node.Line)
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(node.Content); i += 2 {
		name := node.Content[i]
		err := visit(name.Value, node.Content[i+1])
		if seen[name.Value] {
			err = fmt.Errorf("%q is there twice", name.Value)
		}
		seen[name.Value] = true
		if err != nil && !strings.HasPrefix(err.Error(), "line ") {
			err = fmt.Errorf("line %d: %w", name.Line, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settingText returns a value as a flag would have it: a list with commas.
func settingText(node *yaml.Node) (string, error) {
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		return "", nil
	case node.Kind == yaml.ScalarNode:
		return node.Value, nil
	case node.Kind != yaml.SequenceNode:
		return "", errors.New("want a value or a list of values")
	}
	var parts []string
	for _, item := range node.Content {
		if item.Kind != yaml.ScalarNode {
			return "", errors.New("want a list of values")
		}
		parts = append(parts, item.Value)
	}
	return strings.Join(parts, ","), nil
}

// names returns the names of the contexts in order.
func (f *contextFile) names() []string { return slices.Sorted(maps.Keys(f.contexts)) }

// find returns a context that must be there.
func (f *contextFile) find(name string) (map[string]string, error) {
	context, ok := f.contexts[name]
	if !ok {
		return nil, fail(exitNotFound, "no context %q in %s%s; see rollcall context list", name, f.path, didYouMean(name, f.names()))
	}
	return context, nil
}
