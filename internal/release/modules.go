// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"time"
)

// bill is a bill of materials in CycloneDX 1.5, as far as it is used.
type bill struct {
	Format      string         `json:"bomFormat"`
	SpecVersion string         `json:"specVersion"`
	Version     int            `json:"version"`
	Metadata    billMetadata   `json:"metadata"`
	Components  []billPart     `json:"components"`
	Depends     []billRelation `json:"dependencies"`
}

type billMetadata struct {
	Timestamp string   `json:"timestamp"` // of the commit, so that it can be made again
	Component billPart `json:"component"`
}

type billPart struct {
	Type       string         `json:"type"`
	Ref        string         `json:"bom-ref"`
	Name       string         `json:"name"`
	Version    string         `json:"version"`
	PURL       string         `json:"purl"`
	Hashes     []billHash     `json:"hashes,omitempty"`
	Properties []billProperty `json:"properties,omitempty"`
}

type billHash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type billProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type billRelation struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

// billOfMaterials lists the modules that are linked into a binary, and Go's standard library.
func billOfMaterials(r *release, info *debug.BuildInfo, platform string, program []byte) ([]byte, error) {
	self := modulePart(info.Main.Path, r.version)
	self.Type = "application"
	self.Hashes = []billHash{{"SHA-256", fmt.Sprintf("%x", sha256.Sum256(program))}}
	self.Properties = []billProperty{{"platform", platform}, {"commit", r.commit}}
	b := bill{Format: "CycloneDX", SpecVersion: "1.5", Version: 1,
		Metadata: billMetadata{r.date.UTC().Format(time.RFC3339), self}}
	relation := billRelation{Ref: self.Ref}
	parts := []billPart{modulePart("std", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, m := range linked(info) {
		part := modulePart(m.Path, m.Version)
		part.Properties = []billProperty{{"go.sum", m.Sum}}
		parts = append(parts, part)
	}
	for _, part := range parts {
		b.Components = append(b.Components, part)
		relation.On = append(relation.On, part.Ref)
	}
	b.Depends = []billRelation{relation}
	return json.MarshalIndent(b, "", "  ")
}

func modulePart(path, version string) billPart {
	purl := "pkg:golang/" + path + "@" + version
	return billPart{Type: "library", Ref: purl, Name: path, Version: version, PURL: purl}
}

// linked returns the modules of a binary, each as what it was replaced with.
func linked(info *debug.BuildInfo) []*debug.Module {
	modules := make([]*debug.Module, 0, len(info.Deps))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		modules = append(modules, m)
	}
	return modules
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

// collectLicences returns the licences and notices of Go and of all modules of a binary. One without is an error.
func collectLicences(ctx context.Context, info *debug.BuildInfo) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "rollcall contains the following modules, under these licences.\n")
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	if err := addLicences(&b, "Go's standard library "+info.GoVersion, strings.TrimSpace(string(goroot))); err != nil {
		return nil, err
	}
	args := []string{"mod", "download", "-json"}
	for _, m := range linked(info) {
		args = append(args, m.Path+"@"+m.Version)
	}
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("go mod download: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(out))
	for range linked(info) {
		var module struct{ Path, Version, Dir string }
		err := decoder.Decode(&module)
		if err == nil {
			err = addLicences(&b, module.Path+" "+module.Version, module.Dir)
		}
		if err != nil {
			return nil, fmt.Errorf("licence of %s %s: %w", module.Path, module.Version, err)
		}
	}
	return b.Bytes(), nil
}

func addLicences(b *bytes.Buffer, title, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	found := false
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		found = true
		fmt.Fprintf(b, "\n%s\n%s: %s\n%s\n\n%s\n", strings.Repeat("=", 80), title, e.Name(), strings.Repeat("=", 80), strings.TrimSpace(string(text)))
	}
	if !found {
		return fmt.Errorf("no licence in %s", dir)
	}
	return nil
}
