// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	etcdversion "go.etcd.io/etcd/api/v3/version"
	"google.golang.org/grpc"
)

// What the linker has stamped on a release, which is built without Go's own stamps: see make release.
var stampedVersion, stampedCommit, stampedTime string

// versionInfo is what this binary was built from.
type versionInfo struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Version    string `json:"version"`
	Commit     string `json:"commit,omitempty"`
	Time       string `json:"time,omitempty"`
	Modified   bool   `json:"modified"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
	EtcdClient string `json:"etcdClient"`
	GRPC       string `json:"grpc"`
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the versions of rollcall and what it is built on",
		Long:    "version shows the version of rollcall, the commit that it was built from, and the versions of Go, gRPC\nand etcd's client that are in it.",
		Example: "  rollcall version\n  rollcall version -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			v := readVersion()
			if a.json() {
				return a.printJSON(v)
			}
			_, err := fmt.Fprint(a.stdout, v.text())
			return err
		},
	}
}

func readVersion() versionInfo {
	info, _ := debug.ReadBuildInfo()
	v := newVersionInfo(info)
	if stampedVersion != "" {
		v.Version, v.Commit, v.Time, v.Modified = stampedVersion, stampedCommit, stampedTime, strings.HasSuffix(stampedVersion, "-dirty")
	}
	return v
}

func newVersionInfo(info *debug.BuildInfo) versionInfo {
	v := versionInfo{APIVersion: apiVersion, Kind: "Version", Version: "(devel)",
		Go: strings.TrimPrefix(runtime.Version(), "go"), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		EtcdClient: etcdversion.Version, GRPC: grpc.Version}
	if info == nil {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		if dep.Path == "go.etcd.io/etcd/client/v3" {
			v.EtcdClient = strings.TrimPrefix(dep.Version, "v")
		}
	}
	return v
}

func (v versionInfo) text() string {
	rows := [][]string{{"rollcall", v.Version}}
	if v.Commit != "" {
		commit := v.Commit
		if v.Modified {
			commit += " (modified)"
		}
		rows = append(rows, []string{"commit", commit}, []string{"committed", v.Time})
	}
	rows = append(rows, []string{"go", v.Go + " " + v.Platform},
		[]string{"etcd client", v.EtcdClient}, []string{"gRPC", v.GRPC})
	return table(rows...)
}
