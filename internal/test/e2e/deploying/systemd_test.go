// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package deploying_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

const unit = "deploy/systemd/rollcall-agent.service"

// systemd finds nothing wrong with the unit, and little that it leaves open.
func TestUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatalf("%v; apt-get install systemd", err)
	case err != nil:
		t.Skipf("%v; apt-get install systemd", err)
	}
	text := strings.ReplaceAll(read(t, unit), "/usr/bin/rollcall", rollcall(t))
	file := written(t, "rollcall-agent.service", text)
	if out, err := output(t, analyze, "verify", "--man=no", file); err != nil || out != "" {
		t.Errorf("%v %s", err, out)
	}
	if _, err := output(t, analyze, "security", "--offline=yes", "--threshold=15", file); err != nil {
		t.Error(err)
	}
	wrong := written(t, "wrong.service", strings.Replace(text, "WatchdogSec=", "WatchdocSec=", 1))
	if out, _ := output(t, analyze, "verify", "--man=no", wrong); !strings.Contains(out, "WatchdocSec") {
		t.Errorf("got %q, want a complaint about the key", out)
	}
}

// rollcall knows what the unit starts, and stops within the time that the unit allows.
func TestUnitStartsTheAgent(t *testing.T) {
	text := read(t, unit)
	value := func(key string) string {
		t.Helper()
		match := regexp.MustCompile("(?m)^" + key + "=(.*)$").FindStringSubmatch(text)
		if match == nil {
			t.Fatalf("%s has no %s", unit, key)
		}
		return match[1]
	}
	start := value("ExecStart")
	checkCall(t, unit, strings.Fields(start)[1:])
	stop, err := time.ParseDuration(value("TimeoutStopSec"))
	if drain := flagOf(t, start, "drain"); err != nil || stop < drain+10*time.Second {
		t.Errorf("TimeoutStopSec=%v, %v, does not leave 10s for etcd after --drain %v", stop, err, drain)
	}
	if value("Type") != "notify" || value("RuntimeDirectory") != "rollcall" {
		t.Error("the agent tells systemd when it is ready, and has its socket in /run/rollcall")
	}
}

// The container holds one file, fetches nothing, and does not run as root.
func TestDockerfile(t *testing.T) {
	instructions := regexp.MustCompile("(?m)^[A-Z].*$").FindAllString(read(t, "deploy/container/Dockerfile"), -1)
	want := `^FROM busybox:[0-9.]+-musl
COPY --chmod=0755 rollcall /bin/rollcall
USER [1-9][0-9]*:[1-9][0-9]*
ENV XDG_RUNTIME_DIR=/tmp
ENTRYPOINT \["/bin/rollcall"\]$`
	if got := strings.Join(instructions, "\n"); !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := read(t, "deploy/container/.dockerignore"); got != "*\n!rollcall\n" {
		t.Errorf("the build context is more than the binary: %q", got)
	}
}
