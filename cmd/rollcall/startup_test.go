// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"
	"time"
)

// maxStartup is how many times the work of a program that does nothing rollcall may take to start and end: a shell
// starts it at each tab key.
const maxStartup = 40

// TestStartup: no package does much work when it is initialised. The test binary has those of rollcall, and more.
func TestStartup(t *testing.T) {
	dir := t.TempDir()
	source, nothing := filepath.Join(dir, "main.go"), filepath.Join(dir, "nothing")
	write(t, source, "package main\n\nfunc main() {}\n")
	args := []string{"build", "-o", nothing, source}
	if info, _ := debug.ReadBuildInfo(); slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" }) {
		args = slices.Insert(args, 1, "-race")
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	work := func(name string, args ...string) time.Duration {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), runVariable+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	least, most := time.Hour, time.Hour // the quickest of some: others have the caches as well
	for range 10 {
		least, most = min(least, work(nothing)), min(most, work(os.Args[0], "version"))
	}
	t.Logf("rollcall version takes %v of a processor, a program that does nothing %v", most, least)
	if most > maxStartup*least {
		t.Errorf("that is more than %d times as long", maxStartup)
	}
}
