// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// everyCommand calls visit with all commands that a user sees.
func everyCommand(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			everyCommand(sub, visit)
		}
	}
}

// words splits a command line as a shell does, as far as the examples need it.
func words(line string) (all []string) {
	for _, word := range regexp.MustCompile(`(?:'[^']*'|"[^"]*"|[^\s'"])+`).FindAllString(line, -1) {
		all = append(all, strings.NewReplacer("'", "", `"`, "").Replace(word))
	}
	return all
}

// TestCommandsAreDescribed: each command has a summary, a description, and examples that it would accept.
func TestCommandsAreDescribed(t *testing.T) {
	examples := regexp.MustCompile(`\brollcall ((?:'[^']*'|"[^"]*"|[^|>&;#)'"])*)`)
	everyCommand(newRoot(&app{}), func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
			t.Errorf("%s: Short %q, Long of %d bytes, Example %q", cmd.CommandPath(), cmd.Short, len(cmd.Long), cmd.Example)
		}
		for line := range strings.Lines(strings.ReplaceAll(cmd.Example, "\\\n", "")) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: the example %q is not indented by two blanks", cmd.CommandPath(), line)
			}
			for _, match := range examples.FindAllStringSubmatch(line, -1) {
				if err := accepts(words(match[1])); err != nil {
					t.Errorf("%s: example %q: %v", cmd.CommandPath(), match[0], err)
				}
			}
		}
	})
}

// accepts parses a command line.
func accepts(args []string) error {
	root := newRoot(&app{})
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// A suggested command runs as it stands, whatever the names in it.
func TestCommandLinesOfAnyNames(t *testing.T) {
	for _, row := range []struct{ got, want string }{
		{shellLineWith("rollcall get", "team a/cart"), "rollcall get 'team a/cart'"},
		{shellLineWith("rollcall rm", "cart", "-1"), "rollcall rm -- cart -1"},
		{shellLine(commandWith("rollcall roles viewer", []string{"cart"}, "--apply")), "rollcall roles viewer cart --apply"},
		{shellLine(commandWith("rollcall roles viewer", []string{"-cart"}, "--apply")), "rollcall roles viewer --apply -- -cart"},
	} {
		if row.got != row.want {
			t.Errorf("got %s, want %s", row.got, row.want)
		}
	}
}

func TestManPages(t *testing.T) {
	defer func(version, time string) { stampedVersion, stampedTime = version, time }(stampedVersion, stampedTime)
	stampedVersion, stampedTime = "v1.2.3", "2026-03-04T05:06:07Z" // as those of a release
	dir := filepath.Join(t.TempDir(), "man")
	must(t, "127.0.0.1:1", "man", dir)
	everyCommand(newRoot(&app{}), func(cmd *cobra.Command) {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		wantIn(t, name, string(page), ` 1 "2026-03-04" "rollcall v1.2.3"`, ".SH NAME", ".SH DESCRIPTION", ".SH EXAMPLES")
	})
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	lint, err := exec.LookPath("mandoc")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if out, err := exec.Command(lint, append([]string{"-Tlint", "-Wwarning"}, pages...)...).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
