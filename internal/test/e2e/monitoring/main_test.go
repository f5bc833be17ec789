// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

const root = "../../../../"

// installed returns the path of a program of Prometheus' package. Without it the test is skipped, but not in CI.
func installed(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatalf("%v; apt-get install prometheus", err)
	case err != nil:
		t.Skipf("%v; apt-get install prometheus", err)
	}
	return path
}

// promtool runs promtool, which must not find fault.
func promtool(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(lab.Context(t), installed(t, "promtool"), args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}
