// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package polyglot_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

var write = flag.String("write", "", "a Markdown `file` for what was measured")

func TestMain(m *testing.M) { lab.Main(runner{m}) }

// runner writes what all tests together have measured.
type runner struct{ *testing.M }

func (r runner) Run() int {
	code := r.M.Run()
	if *write != "" && code == 0 {
		if err := os.WriteFile(*write, []byte(measured.markdown()), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}
