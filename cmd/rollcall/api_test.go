// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are the types of the JSON documents, by their kinds.
var documents = map[string]reflect.Type{
	"AgentStatus":        reflect.TypeFor[agentStatus](),
	"ClusterStatus":      reflect.TypeFor[clusterStatus](),
	"ContextList":        reflect.TypeFor[contextList](),
	"Deletion":           reflect.TypeFor[deletion](),
	"Diagnosis":          reflect.TypeFor[diagnosis](),
	"DrainPreview":       reflect.TypeFor[editPreview](),
	"DrainPreviewList":   reflect.TypeFor[editPreviewList](),
	"Edit":               reflect.TypeFor[edited](),
	"EditList":           reflect.TypeFor[editList](),
	"History":            reflect.TypeFor[historyDocument](),
	"Import":             reflect.TypeFor[imported](),
	"Instance":           reflect.TypeFor[written](),
	"InstanceList":       reflect.TypeFor[instanceList](),
	"Move":               reflect.TypeFor[moved](),
	"Ping":               reflect.TypeFor[pinged](),
	"Resolution":         reflect.TypeFor[resolution](),
	"RevisionList":       reflect.TypeFor[revisionList](),
	"Role":               reflect.TypeFor[role](),
	"ServiceConfig":      reflect.TypeFor[serviceConfigDoc](),
	"ServiceList":        reflect.TypeFor[serviceList](),
	"Services":           reflect.TypeFor[manifest](),
	"SettingList":        reflect.TypeFor[settingList](),
	"UndrainPreview":     reflect.TypeFor[editPreview](),
	"UndrainPreviewList": reflect.TypeFor[editPreviewList](),
	"Version":            reflect.TypeFor[versionInfo](),
	"Wait":               reflect.TypeFor[awaited](),
	"WeightPreview":      reflect.TypeFor[editPreview](),
	"WeightPreviewList":  reflect.TypeFor[editPreviewList](),
	"XDSClientList":      reflect.TypeFor[xdsClientList](),
	"XDSExplanation":     reflect.TypeFor[xdsExplanation](),
}

// notFields is what rows name besides fields: commands, a flag and values.
var notFields = []string{"get", "--endpoints", "ok", "degraded", "bad", "error", "warning", "note", "unchecked", "healthy", "failing", "unhealthy", "alike", "unknown"}

var quoted = regexp.MustCompile("`([^`]+)`")

// TestDocumentsAreInTheAPI: docs/api.md has a row for each kind of JSON document, which has all of its fields, and no
// other words for fields, or for fields of what it holds.
func TestDocumentsAreInTheAPI(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## JSON of the command")
	_, instance, _ := strings.Cut(section, "\nAn instance has ")
	rows := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z]\\w+)` \\| [^|]* \\| (.*) \\|$").FindAllStringSubmatch(section, -1) {
		rows[row[1]] = row[2]
		if documents[row[1]] == nil {
			t.Errorf("docs/api.md has the kind %s, which nothing writes", row[1])
		}
	}
	for kind, document := range documents {
		row := strings.Replace(rows[kind], "the fields of one instance", instance, 1)
		row = strings.Replace(row, "the fields of DrainPreview", rows["DrainPreview"], 1)
		for name := range jsonFields(document, false) {
			if !strings.Contains(row, "`"+name+"`") && !strings.HasSuffix(name, "Base64") && name != "apiVersion" && name != "kind" {
				t.Errorf("docs/api.md, %s: no field %q; the row is %q", kind, name, rows[kind])
			}
		}
		known := jsonFields(document, true)
		for _, word := range quoted.FindAllStringSubmatch(rows[kind], -1) {
			if !known[word[1]] && !slices.Contains(notFields, word[1]) {
				t.Errorf("docs/api.md, %s: no field is named %q; the row is %q", kind, word[1], rows[kind])
			}
		}
	}
}

// TestDocumentsAreKnown: the types of all documents are in documents.
func TestDocumentsAreKnown(t *testing.T) {
	known := map[string]bool{"rawClientList": true} // which is only read
	for _, document := range documents {
		known[document.Name()] = true
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range regexp.MustCompile("(?m)^type (\\w+) struct {\n(?:\t.*\n)*?\tKind .*`json:\"kind\"`").FindAllSubmatch(source, -1) {
			found++
			if !known[string(document[1])] {
				t.Errorf("%s: the document %s is not known to the test of docs/api.md", name, document[1])
			}
		}
	}
	if found != len(known) {
		t.Errorf("%d documents are found in the source, want %d", found, len(known))
	}
}

// jsonFields returns the names that the fields of a type have in JSON, and if deep those of all that they hold.
func jsonFields(of reflect.Type, deep bool) map[string]bool {
	names, seen := make(map[string]bool), make(map[reflect.Type]bool)
	var add func(of reflect.Type)
	add = func(of reflect.Type) {
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice || of.Kind() == reflect.Map {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || seen[of] {
			return
		}
		seen[of] = true
		for i := range of.NumField() {
			field := of.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" && name != "-" {
				names[name] = true
			}
			if name != "-" && (deep || name == "" && field.Anonymous) {
				add(field.Type)
			}
		}
	}
	add(of)
	return names
}
