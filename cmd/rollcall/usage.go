// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rollcall-grpc/rollcall"
)

// argument is one that a command takes, as its usage line names it: SERVICE, [PREFIX], ID|HOST:PORT...
type argument struct {
	name     string
	optional bool
	repeated bool
}

var usageWords = regexp.MustCompile(`\[[^\]]*\]\S*|\S+`)

// argumentsOf reads the arguments of a command from its usage line. What is in lower case is a word to be
// given as it is.
func argumentsOf(cmd *cobra.Command) (arguments []argument) {
	words := usageWords.FindAllString(cmd.Use, -1)[1:]
	for i := 0; i < len(words); i++ {
		word := words[i]
		name := strings.TrimSuffix(word, "...")
		arg := argument{name: strings.Trim(name, "[]"), optional: strings.HasPrefix(name, "["), repeated: name != word}
		switch {
		case strings.HasPrefix(arg.name, "-") && arg.optional:
		case arg.name == "--", arg.name == "|":
			return arguments
		case strings.HasPrefix(arg.name, "-"):
			i++ // a flag that must be given, and its value
		case arg.name == "FLAGS":
		default:
			arguments = append(arguments, arg)
		}
	}
	return arguments
}

// cobraCounts matches the errors of cobra's own checks, which only count.
var cobraCounts = regexp.MustCompile(`^(accepts|requires|unknown command) `)

// usageArgs makes wrong arguments a usage error, which says what is missing or too much.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil {
			return nil
		}
		problem := err.Error()
		want := argumentsOf(cmd)
		switch {
		case !cobraCounts.MatchString(problem): // the command's own check knows better
		case cmd.HasSubCommands():
			return unknownCommand(cmd, args)
		case len(args) < len(want) && !want[len(args)].optional:
			problem = want[len(args)].name + " is missing" + meantAsKey(cmd, args)
			if cmd.Flags().Lookup("selector") != nil && len(args) == 1 {
				problem += "; or give --selector"
				if cmd.Flags().Lookup("all") != nil {
					problem += " or --all"
				}
			}
		case len(args) > len(want) && (len(want) == 0 || !want[len(want)-1].repeated):
			problem = fmt.Sprintf("unexpected argument %q", args[len(want)])
		}
		example, _, _ := strings.Cut(strings.TrimSpace(cmd.Example), "\n")
		if example != "" {
			example = "; for example: " + example
		}
		return fail(exitUsage, "%s; usage: %s%s; see %s --help", problem, strings.TrimSuffix(cmd.UseLine(), " [flags]"), example, cmd.CommandPath())
	}
}

// meantAsKey suggests the service and the id of a key that was given in place of the two; "" if none was.
func meantAsKey(cmd *cobra.Command, args []string) string {
	want := argumentsOf(cmd)
	if len(args) != 1 || len(want) != 2 || !strings.HasPrefix(want[1].name, "ID") {
		return ""
	}
	service, id := rollcall.SplitKey(args[0])
	if service == "" || id == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", shellLineWith(cmd.CommandPath(), service, id))
}
