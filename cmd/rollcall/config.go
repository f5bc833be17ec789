// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/printable"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// sampleConfig is a service config to begin with.
const sampleConfig = `{"loadBalancingConfig":[{"round_robin":{}}]}`

// maxConfig is the largest service config that is read: etcd takes requests of 1.5 MiB.
const maxConfig = 1 << 20

// serviceConfig is a service config as commands show it.
type serviceConfig struct {
	Key         string          `json:"key"`
	ModRevision int64           `json:"modRevision"`
	Config      json.RawMessage `json:"config"`          // a string if the stored text is not JSON
	Cause       string          `json:"cause,omitempty"` // why it is invalid
	text        string
}

// serviceConfigDoc is a service config, or a change of one, as JSON.
type serviceConfigDoc struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	serviceName
	serviceConfig
	Changed *bool  `json:"changed,omitempty"`
	Diff    string `json:"diff,omitempty"`
}

func newConfig(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config get|set|rm SERVICE",
		Short: "Show or change a service's gRPC service config",
		Long: "config reads and writes the gRPC service config of a service, the key " + rollcall.ConfigPrefix + "SERVICE:\n" +
			"balancing policy, timeouts, retries and health checks. Channels that resolve the\n" +
			"service through Rollcall follow it at once.",
		Example: "  rollcall config set my-service policy.json\n  rollcall config get my-service\n  rollcall config rm my-service",
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigGet(a), newConfigSet(a), newConfigRm(a))
	return cmd
}

func newConfigGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get SERVICE",
		Short: "Show a service config",
		Long: "get prints the service config, and reports whether gRPC accepts it. If there is none, the\n" +
			"exit code is 3.",
		Example: "  rollcall config get my-service",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := rollcall.ParseService(args[0])
			if err != nil {
				return err
			}
			return a.getConfig(cmd.Context(), service)
		},
	}
}

func newConfigSet(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "set SERVICE [FILE|-]",
		Short: "Write a service config",
		Long: "set reads a service config, JSON, from a file or from standard input, checks it as gRPC\n" +
			"does, shows the difference and writes it. An invalid one is not written, and fields that gRPC\n" +
			"does not know and would ignore are pointed out. rollcall does not know your own policies: list\n" +
			"one of gRPC's after them. If the service config is changed meanwhile, nothing is written and\n" +
			"the exit code is 1.\n\n" +
			"On a terminal, without a FILE, set opens what is there now in the editor that VISUAL or EDITOR\n" +
			"names, or else in vi, and lets you edit it again if it is invalid. What you do not change is not\n" +
			"written.",
		Example: "  rollcall config set my-service policy.json\n" +
			`  echo '{"loadBalancingConfig":[{"round_robin":{}}]}' | rollcall config set my-service` + "\n" +
			"  rollcall config set my-service policy.json --dry-run",
		Args: usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := rollcall.ParseService(args[0])
			if err != nil {
				return err
			}
			if len(args) == 1 && isTerminal(a.stdin) {
				return a.editConfig(cmd.Context(), service, dryRun)
			}
			text, err := a.readConfig(cmd.Context(), strings.Join(args[1:], ""))
			if err != nil {
				return err
			}
			return a.setConfig(cmd.Context(), service, text, nil, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check it and show the difference, but write nothing")
	return cmd
}

func newConfigRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm SERVICE",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove a service config",
		Long: "rm deletes the service config. Channels fall back to their own default. If there is none\n" +
			"to remove, the exit code is 3.",
		Example: "  rollcall config rm my-service",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := rollcall.ParseService(args[0])
			if err != nil {
				return err
			}
			return a.talk(cmd.Context(), func(ctx context.Context, client *clientv3.Client) error {
				resp, err := client.Delete(ctx, rollcall.ConfigPrefix+service)
				if err != nil {
					return fmt.Errorf("remove the service config of %q: %w", service, err)
				}
				if resp.Deleted == 0 {
					return noConfig(service)
				}
				return a.printRemoved([]edit.Key{{Key: rollcall.ConfigPrefix + service}}, deletion{Revision: resp.Header.Revision, Transactions: 1})
			})
		},
	}
}

func noConfig(service string) error {
	return fail(exitNotFound, "service %q has no service config: no key %q", service, rollcall.ConfigPrefix+service)
}

// renderConfig returns a service config as commands show it, nil if the service has none.
func renderConfig(stored *rollcall.ServiceConfig) *serviceConfig {
	if stored.JSON == nil {
		return nil
	}
	c := &serviceConfig{Key: rollcall.ConfigPrefix + stored.Service, ModRevision: stored.ModRevision,
		Config: stored.JSON, text: string(stored.JSON)}
	if err := resolver.CheckServiceConfig(c.text); err != nil {
		c.Cause = inventory.Reason(err)
	}
	if !json.Valid(c.Config) {
		c.Config, _ = json.Marshal(c.text)
	}
	return c
}

// indented returns the JSON with a line a field.
func (c *serviceConfig) indented() string {
	if c == nil {
		return ""
	}
	var b bytes.Buffer
	if json.Indent(&b, []byte(strings.TrimSpace(c.text)), "", "  ") != nil {
		return c.text + "\n"
	}
	return b.String() + "\n"
}

// readConfig returns the service config in a file or on standard input.
func (a *app) readConfig(ctx context.Context, file string) (string, error) {
	name, data, err := a.readFile(ctx, file, "the service config", maxConfig)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "", fail(exitUsage, "%s is empty: want a service config, such as %s", name, sampleConfig)
	}
	return text, checkConfig(text)
}

// checkConfig returns why gRPC does not accept a service config.
func checkConfig(text string) error {
	if err := resolver.CheckServiceConfig(text); err != nil {
		return fail(exitUsage, "invalid service config: %s; nothing was written", inventory.Reason(err))
	}
	return nil
}

func (a *app) getConfig(ctx context.Context, service string) error {
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		dir, err := rollcall.SharedDirectory(client)
		if err != nil {
			return err
		}
		stored, err := dir.ServiceConfig(ctx, service)
		if err != nil {
			return err
		}
		if config := renderConfig(stored); config != nil {
			return a.printConfig(service, config)
		}
		return noConfig(service)
	})
}

// setConfig replaces the service config that was before or, where that is nil, the one that etcd has now.
func (a *app) setConfig(ctx context.Context, service, text string, before *rollcall.ServiceConfig, dryRun bool) error {
	a.warnConfig(service, []byte(text))
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		dir, err := rollcall.SharedDirectory(client)
		if err != nil {
			return err
		}
		if before == nil {
			if before, err = dir.ServiceConfig(ctx, service); err != nil {
				return err
			}
		}
		after := &rollcall.ServiceConfig{Service: service, JSON: json.RawMessage(text), ModRevision: before.ModRevision}
		changed := string(before.JSON) != text
		if changed && !dryRun {
			after, err = dir.PutServiceConfig(ctx, *after)
			if errors.Is(err, rollcall.ErrConfigChanged) {
				return fmt.Errorf("%w; see rollcall config get, and try again", err)
			}
			if err != nil {
				return err
			}
		}
		a.expectService(ctx, client, service)
		return a.printConfigChange(service, renderConfig(before), renderConfig(after), changed, dryRun)
	})
}

// expectService points out that a service has no endpoints: its name may be misspelt.
func (a *app) expectService(ctx context.Context, client *clientv3.Client, service string) {
	resp, err := client.Get(ctx, service+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err == nil && resp.Count == 0 {
		a.say("service %q has no endpoints; is the name right? see rollcall ls", service)
	}
}

func (a *app) printConfig(service string, config *serviceConfig) error {
	if config.Cause != "" {
		a.say("the service config is invalid, channels ignore it: %s", config.Cause)
	}
	if a.json() {
		return a.printJSON(serviceConfigDoc{APIVersion: apiVersion, Kind: "ServiceConfig", serviceName: nameOf(service), serviceConfig: *config})
	}
	_, err := fmt.Fprint(a.stdout, safeLines(config.indented()))
	return err
}

func (a *app) printConfigChange(service string, before, after *serviceConfig, changed, dryRun bool) error {
	diff := udiff.Unified("before", "after", before.indented(), after.indented())
	if a.json() {
		written := changed && !dryRun
		return a.printJSON(serviceConfigDoc{APIVersion: apiVersion, Kind: "ServiceConfig", serviceName: nameOf(service), serviceConfig: *after,
			Changed: &written, Diff: diff})
	}
	switch {
	case !changed:
		a.say("%q is the same already, since revision %d", after.Key, after.ModRevision)
	case dryRun:
		a.say("%q was not written: this is a dry run", after.Key)
	default:
		a.say("%q was written at revision %d", after.Key, after.ModRevision)
	}
	_, err := fmt.Fprint(a.stdout, safeLines(diff))
	return err
}

// safeLines is safe for a text of several lines.
func safeLines(text string) string { return printable.EscapeLines(text) }
