// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

type settingList struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Settings   []settingItem `json:"settings"`
}

// settingItem is a setting in use and where it comes from.
type settingItem struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	From  string `json:"from"` // "default" if nothing sets it
}

func newContextShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show the settings in use, and where each comes from",
		Long: "show tells what a command that is run now would use, and where each setting comes from: a flag,\n" +
			"a variable, a context and its file, or the default. Secrets are hidden.",
		Example: "  rollcall context show\n  rollcall context show --context prod",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list := settingList{APIVersion: apiVersion, Kind: "SettingList", Settings: a.settingsInUse(cmd.Root().PersistentFlags())}
			if a.json() {
				return a.printJSON(list)
			}
			rows := [][]string{{"SETTING", "VALUE", "FROM"}}
			for _, s := range list.Settings {
				rows = append(rows, []string{s.Name, s.Value, s.From})
			}
			return a.write(table(rows...))
		},
	}
}

// settingsInUse are the settings that something has set, and those that matter by default.
func (a *app) settingsInUse(flags *pflag.FlagSet) []settingItem {
	var items []settingItem
	for _, name := range settingNames {
		from, set := a.origins[name]
		if !set && name != "endpoints" && name != "dial-timeout" && name != "output" {
			continue
		}
		if !set {
			from.label = "default"
		}
		flag := flags.Lookup(name)
		value := flag.Value.String()
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			value = joined(list.GetSlice())
		}
		if set && value == "" {
			continue // of a source that another setting of a nearer one excludes
		}
		if name == "password" || name == "auth-jwt-token" {
			value = "(hidden)"
		}
		items = append(items, settingItem{name, value, from.label})
	}
	return items
}

func joined(list []string) string { return strings.Join(list, ",") }
