// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// serverPackage is the main package of etcd since 3.5.
const serverPackage = "go.etcd.io/etcd/server/v3"

// versionVar is the environment variable with the version of etcd that clusters run, such as 3.5.
const versionVar = "ROLLCALL_ETCD"

// Newest is the version that tools/go.mod pins.
const Newest = "3.7"

// binaries are the main packages, and the module in tools that pins each. An older etcd needs its
// own module, since a module has only one version of a package.
var binaries = map[string]struct{ module, pkg string }{
	"etcd":     {".", serverPackage},
	"etcd-3.4": {"etcd34", "go.etcd.io/etcd"},
	"etcd-3.5": {"etcd35", serverPackage},
	"etcd-3.6": {"etcd36", serverPackage},
	"etcdctl":  {".", "go.etcd.io/etcd/etcdctl/v3"},
	"etcdutl":  {".", "go.etcd.io/etcd/etcdutl/v3"},
}

// startDir is the directory of the tested package. It is read at the start, since a test may
// change the working directory.
var startDir, startDirErr = os.Getwd()

// Version returns the version of etcd that clusters run unless Options.Etcd is set: the newest, or
// the one that the environment variable ROLLCALL_ETCD names.
func Version() string {
	if v := os.Getenv(versionVar); v != "" {
		return v
	}
	return Newest
}

// Etcd returns the path of the etcd of a version, such as "3.5".
func Etcd(tb testing.TB, version string) string {
	tb.Helper()
	if version == Newest {
		return Binary(tb, "etcd")
	}
	return Binary(tb, "etcd-"+version)
}

// Binary returns the path of a program by its name in binaries, such as "etcd" or "etcdctl". The
// first caller on a machine builds it, which takes a minute or two; others wait, even in other
// processes.
func Binary(tb testing.TB, name string) string {
	tb.Helper()
	path, err := binary(name)
	if err != nil {
		tb.Fatalf("etcdtest: %s: %v", name, err)
	}
	return path
}

func binary(name string) (string, error) {
	b, ok := binaries[name]
	if !ok {
		return "", fmt.Errorf("no such binary; there are %s", strings.Join(slices.Sorted(maps.Keys(binaries)), ", "))
	}
	tools, err := toolsDir()
	if err != nil {
		return "", err
	}
	tools = filepath.Join(tools, b.module)
	dir, err := buildDir(tools)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	if exists(path) {
		return path, nil // complete, since it was renamed into place
	}
	unlock, err := lockFile(filepath.Join(dir, "lock"), true)
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(path) {
		return path, nil
	}
	return path, build(tools, b.pkg, path)
}

// build builds pkg and renames the binary to path, so that it is never incomplete.
func build(tools, pkg, path string) error {
	tmp := path + ".new"
	cmd := exec.Command("go", "build", "-o", tmp, pkg)
	cmd.Dir = tools
	// The flags of the running tests, such as another go.mod, are not for this module.
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return os.Rename(tmp, path)
}

// toolsDir finds the repository's tools directory above the test's working directory.
func toolsDir() (string, error) {
	if startDirErr != nil {
		return "", startDirErr
	}
	for dir := startDir; ; dir = filepath.Dir(dir) {
		tools := filepath.Join(dir, "tools")
		mod, err := os.ReadFile(filepath.Join(tools, "go.mod"))
		if err == nil && strings.Contains(string(mod), serverPackage) {
			return tools, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no tools/go.mod that requires etcd in %s or above", startDir)
		}
	}
}

// buildDir creates the directory for binaries of this module in tools and this Go version.
func buildDir(tools string) (string, error) {
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(tools, name))
		if err != nil {
			return "", err
		}
		h.Write(b)
	}
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, hex.EncodeToString(h.Sum(nil))[:16])
	return dir, os.MkdirAll(dir, 0o755)
}

// cacheDir is reused by later runs; without a home directory it is a temporary one.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "rollcall-tools")
	return dir, os.MkdirAll(dir, 0o755)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
