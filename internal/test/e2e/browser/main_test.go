// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

var update = flag.Bool("update", false, "write the screenshots in docs/console")

// What all tests use.
var (
	command  string          // the path of rollcall
	chromium context.Context // nil: there is none
	axe      string          // the source of axe-core; "": there is none
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds rollcall, starts Chromium, and runs the tests.
func run(m *testing.M) int {
	if err := flag.Set("test.parallel", "2"); err != nil { // the tests mostly wait; a -parallel on the command line wins
		panic(err)
	}
	flag.Parse()
	dir, err := os.MkdirTemp("", "rollcall-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	command = filepath.Join(dir, "rollcall")
	if out, err := exec.Command("go", "build", "-o", command, "github.com/rollcall-grpc/rollcall/cmd/rollcall").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build rollcall: %v: %s\n", err, out)
		return 1
	}
	source, _ := os.ReadFile("node_modules/axe-core/axe.min.js")
	axe = string(source)
	if path, err := exec.LookPath("chromium"); err == nil {
		options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(filepath.Join(dir, "profile")))
		allocated, end := chromedp.NewExecAllocator(context.Background(), options...)
		defer end()
		ctx, closeAll := chromedp.NewContext(allocated)
		defer closeAll()
		if err := chromedp.Do(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "start chromium:", err)
			return 1
		}
		chromium = ctx
	}
	return m.Run()
}

// need skips the test without a tool, and fails it where all of them have to be.
func need(t *testing.T, present bool, what string) {
	t.Helper()
	switch {
	case present:
	case os.Getenv("CI") == "true":
		t.Fatal("there is no " + what)
	default:
		t.Skip("there is no " + what)
	}
}
