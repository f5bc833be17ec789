// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// completionTimeout is what somebody who has pressed the tab key waits for etcd at most.
const completionTimeout = time.Second

// maxCompletionKeys bounds the keys that are read for a completion.
const maxCompletionKeys = 10_000

const completionHelp = `completion writes a script that lets a shell complete commands, flags, formats, contexts, and, by asking
the etcd of the settings, names of services and ids of endpoints. To have it in every new shell:

  bash         rollcall completion bash > ~/.local/share/bash-completion/completions/rollcall
               (needs the package bash-completion)
  zsh          rollcall completion zsh > "${fpath[1]}/_rollcall"
               (needs "autoload -U compinit; compinit" in ~/.zshrc)
  fish         rollcall completion fish > ~/.config/fish/completions/rollcall.fish
  powershell   rollcall completion powershell >> $PROFILE

In this shell alone: source <(rollcall completion bash), and so on.`

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Write a script with which a shell completes commands",
		Long:  completionHelp,
		Example: "  source <(rollcall completion bash)\n" +
			"  rollcall completion fish > ~/.config/fish/completions/rollcall.fish",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return fail(exitUsage, "unknown shell %q%s; usage: %s", args[0], didYouMean(args[0], []string{"bash", "zsh", "fish", "powershell"}), cmd.UseLine())
		},
	}
}

// complete makes all commands complete their arguments as their usage lines name them, and their flags.
func (a *app) complete(cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil && !cmd.HasSubCommands() {
		cmd.ValidArgs, cmd.ValidArgsFunction = nil, a.completeArgument
	}
	cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		if _, file := flag.Annotations[cobra.BashCompFilenameExt]; !file { // a function would win over it
			_ = cmd.RegisterFlagCompletionFunc(flag.Name, a.flagCompletion(flag))
		}
	})
	for _, sub := range cmd.Commands() {
		a.complete(sub)
	}
}

// completeArgument completes the next argument of a command.
func (a *app) completeArgument(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	arguments := argumentsOf(cmd)
	if flag := cmd.Flags().Lookup("selector"); flag != nil && flag.Changed {
		arguments = slices.DeleteFunc(arguments, func(arg argument) bool { return strings.HasPrefix(arg.name, "ID") })
	}
	if flag := cmd.Flags().Lookup("all-services"); flag != nil && flag.Changed {
		arguments = slices.DeleteFunc(arguments, func(arg argument) bool { return arg.name == "SERVICE" || strings.HasPrefix(arg.name, "ID") })
	}
	at := len(args)
	if last := len(arguments) - 1; at > last && last >= 0 && arguments[last].repeated {
		at = last
	}
	if at >= len(arguments) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	switch name := arguments[at].name; {
	case strings.Contains(name, "SERVICE") && isSet(cmd, "prefix"):
		return a.completePrefixes(cmd, typed), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	case strings.Contains(name, "SERVICE"), name == "TARGET", name == "PREFIX":
		return a.completeServices(cmd, typed), cobra.ShellCompDirectiveNoFileComp
	case strings.HasPrefix(name, "ID") && len(args) > 0:
		return a.completeIDs(cmd, args, typed), cobra.ShellCompDirectiveNoFileComp
	case name == "CONTEXT":
		return a.completeContexts(cmd, args, typed)
	case strings.Contains(name, "FILE"), name == "DIR":
		return nil, cobra.ShellCompDirectiveDefault
	case strings.ToLower(name) == name:
		words := strings.Split(name, "|")
		return slices.DeleteFunc(words, func(word string) bool { return !strings.HasPrefix(word, typed) }), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// markFiles makes the values of flags complete as names of files.
func markFiles(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		if err := cobra.MarkFlagFilename(flags, name); err != nil {
			panic(err)
		}
	}
}

// flagCompletion returns what completes the value of a flag that is not the name of a file.
func (a *app) flagCompletion(flag *pflag.Flag) cobra.CompletionFunc {
	switch {
	case flag.Name == "output":
		return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return knownOutputs(cmd), cobra.ShellCompDirectiveNoFileComp
		}
	case flag.Name == "write-out":
		return cobra.FixedCompletions([]string{"json", "simple", "table"}, cobra.ShellCompDirectiveNoFileComp)
	case flag.Name == "selector":
		return cobra.FixedCompletions([]string{"host=", "region=", "status=", "subzone=", "version=", "weight=", "zone="}, cobra.ShellCompDirectiveNoSpace|cobra.ShellCompDirectiveNoFileComp)
	case flag.Name == "context":
		return a.completeContexts
	}
	return cobra.NoFileCompletions
}

func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	file, _, err := a.contextFile()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return file.names(), cobra.ShellCompDirectiveNoFileComp
}

// completeServices returns the services that begin with what was typed.
func (a *app) completeServices(cmd *cobra.Command, typed string) []string {
	keys := a.completionKeys(cmd, typed)
	return offered(serviceNames(keys))
}

// completePrefixes returns the prefixes of services, each with its "/", that begin with what was typed.
func (a *app) completePrefixes(cmd *cobra.Command, typed string) (prefixes []string) {
	for _, service := range a.completeServices(cmd, typed) {
		for at, c := range service {
			if c == '/' && at >= len(typed)-1 {
				prefixes = append(prefixes, service[:at+1])
			}
		}
	}
	slices.Sort(prefixes)
	return slices.Compact(prefixes)
}

// isSet reports whether a command has a flag that is on.
func isSet(cmd *cobra.Command, name string) bool {
	flag := cmd.Flags().Lookup(name)
	return flag != nil && flag.Value.String() == "true"
}

// completeIDs returns the ids of a service that begin with what was typed, but for those that were given.
func (a *app) completeIDs(cmd *cobra.Command, args []string, typed string) []string {
	service, err := rollcall.ParseService(args[0])
	if err != nil {
		return nil
	}
	var ids []string
	for _, key := range a.completionKeys(cmd, rollcall.Key(service, typed)) {
		if id := strings.TrimPrefix(key, rollcall.Key(service, "")); !slices.Contains(args[1:], id) {
			ids = append(ids, id)
		}
	}
	return offered(ids)
}

// completionKeys returns keys with a prefix. Where etcd does not answer there are none, and nothing is said.
func (a *app) completionKeys(cmd *cobra.Command, prefix string) []string {
	if a.resolveSettings(cmd) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), min(completionTimeout, a.dialTimeout))
	defer cancel()
	if a.discover(ctx) != nil || a.user != "" && a.password == "" && a.passwordFile == "" {
		return nil // a completion cannot ask for a password
	}
	if a.resolvePassword(ctx) != nil {
		return nil
	}
	client, err := a.client()
	if err != nil {
		return nil
	}
	defer client.Close()
	if connect(ctx, client) != nil {
		return nil
	}
	keys, _ := keysUnder(ctx, client, prefix)
	return keys
}

// keysUnder returns the first keys with a prefix that are those of endpoints.
func keysUnder(ctx context.Context, client *clientv3.Client, prefix string) ([]string, error) {
	resp, err := client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(maxCompletionKeys), clientv3.WithSerializable())
	if err != nil {
		return nil, fmt.Errorf("list keys under %q: %w", prefix, err)
	}
	var keys []string
	for _, kv := range resp.Kvs {
		if key := string(kv.Key); !strings.HasPrefix(key, rollcall.ConfigPrefix) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// serviceNames returns the services that keys are of.
func serviceNames(keys []string) (services []string) {
	for _, key := range keys {
		if at := strings.LastIndex(key, "/"); at > 0 {
			services = append(services, key[:at])
		}
	}
	slices.Sort(services)
	return slices.Compact(services)
}

// offered returns the names that a shell can be given: those that a person can type.
func offered(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		return safe(name) != name || strings.ContainsFunc(name, unicode.IsSpace)
	})
}
