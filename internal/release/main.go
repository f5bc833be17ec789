// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command release builds what a release consists of: for each platform an archive with the binary, completions, manual
// pages and the licences of all that is linked, and a bill of materials; and the checksums of all. The same source and
// the same Go make the same bytes, in whatever folder.
package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// maxBinary bounds a stripped binary, which has some 43 MiB: who adds a dependency that takes more has to say why. Most
// of it is gRPC, etcd and what Envoy's resources need.
const maxBinary = 48 << 20

const allTargets = "linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64"

// release is what is built, and how it is named.
type release struct {
	version string    // such as v0.1.0
	commit  string    // its hash
	date    time.Time // when it was committed; files in archives are of that time
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var r release
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&r.version, "version", "", "version, such as v0.1.0")
	flags.StringVar(&r.commit, "commit", "", "hash of the commit")
	date := flags.String("date", "", "date of the commit, RFC 3339")
	out := flags.String("out", "dist", "folder, which is made anew")
	targets := flags.String("targets", allTargets, "platforms, each GOOS/GOARCH")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if r.version == "" || r.commit == "" {
		return errors.New("-version and -commit are missing")
	}
	var err error
	if r.date, err = time.Parse(time.RFC3339, *date); err != nil {
		return fmt.Errorf("-date: %w", err)
	}
	work, err := os.MkdirTemp("", "rollcall-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	extras, err := r.extras(ctx, work)
	if err != nil {
		return err
	}
	var files []file
	for _, target := range strings.Fields(*targets) {
		built, err := r.target(ctx, work, target, extras)
		if err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		files = append(files, built...)
	}
	return writeRelease(*out, files)
}

// build builds the command for a platform, and checks its size.
func (r *release) build(ctx context.Context, goos, goarch, binary string) error {
	stamp := fmt.Sprintf("-s -w -X main.stampedVersion=%s -X main.stampedCommit=%s -X main.stampedTime=%s",
		r.version, r.commit, r.date.UTC().Format(time.RFC3339))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", stamp, "-o", binary, "./cmd/rollcall")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "GOAMD64=v1", "GOARM64=v8.0",
		"CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off") // whatever this machine prefers
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	fmt.Printf("%s/%s: %.1f MiB\n", goos, goarch, float64(info.Size())/(1<<20))
	if info.Size() > maxBinary {
		return fmt.Errorf("the binary has %d bytes, over %d: leave out what makes it so large, or raise maxBinary", info.Size(), maxBinary)
	}
	return nil
}

// extras has what all archives share: documents, completions and manual pages, which the command itself writes.
func (r *release) extras(ctx context.Context, work string) ([]file, error) {
	host := filepath.Join(work, "rollcall-host"+suffix(runtime.GOOS))
	if err := r.build(ctx, runtime.GOOS, runtime.GOARCH, host); err != nil {
		return nil, err
	}
	var files []file
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, data, 0o644})
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		data, err := exec.CommandContext(ctx, host, "completion", shell).Output()
		if err != nil {
			return nil, fmt.Errorf("completion of %s: %w", shell, err)
		}
		files = append(files, file{"completions/rollcall." + shell, data, 0o644})
	}
	pages := filepath.Join(work, "man")
	if out, err := exec.CommandContext(ctx, host, "man", pages).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("manual pages: %w: %s", err, out)
	}
	entries, err := os.ReadDir(pages)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(pages, e.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, file{"man/" + e.Name(), data, 0o644})
	}
	return files, err
}

// target makes the archive and the bill of materials of a platform.
func (r *release) target(ctx context.Context, work, target string, extras []file) ([]file, error) {
	goos, goarch, found := strings.Cut(target, "/")
	if !found {
		return nil, errors.New("want GOOS/GOARCH")
	}
	binary := filepath.Join(work, "rollcall"+suffix(goos))
	if err := r.build(ctx, goos, goarch, binary); err != nil {
		return nil, err
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	licences, err := collectLicences(ctx, info)
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("rollcall_%s_%s_%s", strings.TrimPrefix(r.version, "v"), goos, goarch)
	files := append([]file{{"rollcall" + suffix(goos), program, 0o755}, {"LICENSES.txt", licences, 0o644}}, extras...)
	pack := packTar
	archive := name + ".tar.gz"
	if goos == "windows" {
		pack, archive = packZip, name+".zip"
	}
	data, err := pack(name, files, r.date)
	if err != nil {
		return nil, err
	}
	bill, err := billOfMaterials(r, info, goos+"/"+goarch, program)
	if err != nil {
		return nil, err
	}
	return []file{{archive, data, 0o644}, {name + ".cdx.json", bill, 0o644}}, nil
}

func suffix(goos string) string {
	if goos == "windows" {
		return ".exe"
	}
	return ""
}
