// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// contextSource returns the settings of a context.
func contextSource(name, path string, context map[string]string) *source {
	return &source{
		label: func(string) string { return fmt.Sprintf("context %q of %s", name, path) },
		get: func(setting string) (string, bool, error) {
			value, given := context[setting]
			return value, given && value != "", nil
		},
	}
}

// chosenContext returns the context that is in use, nil if none is, and its place among the sources: next
// to what names it.
func (a *app) chosenContext(byFlag bool) (rank int, from *source, err error) {
	variable, _ := a.getenv("ROLLCALL_CONTEXT")
	name := cmp.Or(a.context, variable)
	switch {
	case byFlag && a.context == "":
		return 0, nil, nil // none, though there is a current one
	case byFlag:
		rank = 1
	case variable != "":
		rank = 2
	default:
		rank = 3
	}
	file, named, err := a.contextFile()
	if err != nil {
		return 0, nil, err
	}
	name = cmp.Or(name, file.current)
	if named && len(file.contexts) == 0 {
		if _, err := os.Stat(file.path); errors.Is(err, fs.ErrNotExist) {
			return 0, nil, fail(exitUsage, "ROLLCALL_CONFIG: %v; see rollcall context set --help", err)
		}
	}
	if name == "" {
		return 0, nil, nil
	}
	context, err := file.find(name)
	if err != nil {
		return 0, nil, fail(exitUsage, "%w", err) // not found is what a command looks for
	}
	return rank, contextSource(name, file.path, context), nil
}

// contextFile reads the file of contexts.
func (a *app) contextFile() (file *contextFile, named bool, err error) {
	path, named, err := a.contextFilePath()
	if err != nil || path == "" {
		return &contextFile{}, false, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, false, err
	}
	file, err = loadContexts(path)
	if err != nil {
		return nil, false, fail(exitUsage, "contexts: %v", err)
	}
	return file, named, nil
}

const contextHelp = `A context is the settings of one cluster under a name: endpoints, certificates, the user
and so on. Contexts are kept in ROLLCALL_CONFIG or else in rollcall/config.yaml where the system keeps
settings of users ($XDG_CONFIG_HOME, ~/.config), readable by its owner alone, without passwords:

  current-context: prod
  contexts:
    prod:
      endpoints: [https://etcd-1:2379, https://etcd-2:2379]
      cacert: ca.pem              # relative to this file
      user: alice
      password-file: password

The commands below change what they are about, and leave the rest of the file as it is, comments too.

A setting that is not given as a flag is looked for in ROLLCALL_*, then in ETCDCTL_*, then in the current
context. A context that ROLLCALL_CONTEXT names wins over ETCDCTL_*, one that --context names over all
variables. --context '' uses none.`

func newContext(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "context list|use|show|set|rename|delete",
		Short:   "Keep the settings of several clusters",
		Long:    contextHelp,
		Example: "  rollcall context set prod --endpoints https://etcd-1:2379 --cacert ca.pem --user alice\n  rollcall context use prod\n  rollcall ls --context prod",
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newContextList(a), newContextUse(a), newContextShow(a), newContextSet(a), newContextRename(a), newContextDelete(a))
	for _, sub := range cmd.Commands() { // they work without a context, and all but show without settings
		if sub.Name() != "show" {
			sub.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return a.checkSettings(cmd) }
		}
	}
	return cmd
}

type contextList struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	File       string        `json:"file"`
	Current    string        `json:"current,omitempty"`
	Contexts   []contextItem `json:"contexts"`
}

type contextItem struct {
	Name     string            `json:"name"`
	Settings map[string]string `json:"settings"`
}

func newList(file *contextFile) contextList {
	list := contextList{APIVersion: apiVersion, Kind: "ContextList", File: file.path, Current: file.current, Contexts: []contextItem{}}
	for _, name := range file.names() {
		list.Contexts = append(list.Contexts, contextItem{name, file.contexts[name]})
	}
	return list
}

func newContextList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:         "list",
		Aliases:     []string{"ls"},
		Short:       "List the contexts",
		Long:        "list shows the contexts of the file, with a * at the current one. -o name has the names alone.",
		Example:     "  rollcall context list",
		Args:        usageArgs(cobra.NoArgs),
		Annotations: outputs("table", "json", "yaml", "name"),
		RunE: func(*cobra.Command, []string) error {
			file, _, err := a.contextFile()
			if err != nil {
				return err
			}
			list := newList(file)
			rows := [][]string{{"CURRENT", "NAME", "ENDPOINTS", "USER"}}
			for _, name := range file.names() {
				context := file.contexts[name]
				mark := ""
				if name == file.current {
					mark = "*"
				}
				rows = append(rows, []string{mark, name, cmp.Or(context["endpoints"], context["discovery-srv"]), context["user"]})
			}
			return a.print(list, file.names(), func() string {
				if len(list.Contexts) == 0 {
					a.say("no contexts in %s; see rollcall context set --help", file.path)
					return ""
				}
				return table(rows...)
			})
		},
	}
}

// changeContexts changes the file, and says what was done, or as JSON lists what it has then.
func (a *app) changeContexts(change func(file *contextFile) (done string, err error)) error {
	file, _, err := a.contextFile()
	if err != nil {
		return err
	}
	if file.path == "" {
		return fail(exitUsage, "there is no file for contexts; set ROLLCALL_CONFIG to one")
	}
	done, err := change(file)
	if err != nil {
		return err
	}
	file, laidOut, err := file.save()
	if err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	if !laidOut {
		a.say("%s has values over several lines, or other YAML whose layout cannot be kept: it was written anew", file.path)
	}
	if a.json() {
		return a.printJSON(newList(file))
	}
	return a.write(safe(done) + "\n")
}

func newContextUse(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "use CONTEXT",
		Short:   "Make a context the current one",
		Long:    "use makes a context the current one: commands use its settings where neither flags nor variables say otherwise.",
		Example: "  rollcall context use prod",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.changeContexts(func(file *contextFile) (string, error) {
				_, err := file.find(args[0])
				file.makeCurrent(args[0])
				return fmt.Sprintf("context %q is the current one", args[0]), err
			})
		},
	}
}

func newContextSet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "set CONTEXT [FLAGS]",
		Short: "Add or change a context",
		Long: "set keeps the global flags that are given in a context, which is added if it is new; other settings\n" +
			"of the context stay. An empty value removes a setting. Names of files are kept as absolute paths.",
		Example: "  rollcall context set prod --endpoints https://etcd-1:2379,https://etcd-2:2379 --cacert ca.pem --user alice\n" +
			"  rollcall context set prod --user ''",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return fail(exitUsage, "a context needs a name")
			}
			return a.changeContexts(func(file *contextFile) (string, error) {
				hint := ""
				if file.current != args[0] {
					hint = fmt.Sprintf("; %s makes it the current one", shellLineWith("rollcall context use", args[0]))
				}
				return fmt.Sprintf("context %q is kept in %s%s", args[0], file.path, hint), a.keep(cmd.Root().PersistentFlags(), within(file.all(), args[0]))
			})
		},
	}
}

// keep puts the global flags that were given into a context.
func (a *app) keep(flags *pflag.FlagSet, context *yaml.Node) (err error) {
	flags.VisitAll(func(flag *pflag.Flag) {
		if !flag.Changed {
			return
		}
		value, name := flag.Value.String(), flag.Name
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			value = joined(list.GetSlice())
		}
		if name == "write-out" {
			name, value = "output", a.output
		}
		bad := checkSetting(name, value)
		if name == "endpoints" && bad == nil {
			_, bad = cleanEndpoints(strings.Split(value, ","))
		}
		if slices.Contains(fileSettings, name) && value != "" && bad == nil {
			value, bad = filepath.Abs(value)
		}
		if bad != nil {
			err = fail(exitUsage, "--%s: %v", flag.Name, bad)
		}
		setField(context, name, value)
	})
	return err
}

func newContextRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rename CONTEXT NEW",
		Short:   "Give a context another name",
		Long:    "rename gives a context another name. If it is the current one, it stays so.",
		Example: "  rollcall context rename prod production",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.changeContexts(func(file *contextFile) (string, error) {
				_, err := file.find(args[0])
				switch {
				case err != nil:
					return "", err
				case args[1] == "":
					return "", fail(exitUsage, "a context needs a name")
				case file.contexts[args[1]] != nil:
					return "", fail(exitUsage, "there is a context %q already; delete it first", args[1])
				}
				file.rename(args[0], args[1])
				return fmt.Sprintf("context %q is now %q", args[0], args[1]), nil
			})
		},
	}
}

func newContextDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "delete CONTEXT",
		Aliases: []string{"rm"},
		Short:   "Delete a context",
		Long:    "delete removes a context from the file. After that of the current one, none is.",
		Example: "  rollcall context delete staging",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.changeContexts(func(file *contextFile) (string, error) {
				_, err := file.find(args[0])
				setField(file.all(), args[0], "")
				hint := ""
				if file.current == args[0] {
					file.makeCurrent("")
					hint = "; it was the current one, and none is now: see rollcall context use"
				}
				return fmt.Sprintf("context %q was deleted%s", args[0], hint), err
			})
		},
	}
}
