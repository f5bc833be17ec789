// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// maxConfig is the largest service config that is read: etcd takes requests of 1.5 MiB.
const maxConfig = 1 << 20

// serviceConfig is a service config as etcd has it.
type serviceConfig struct {
	Key         string          `json:"key"`
	ModRevision int64           `json:"modRevision"`
	Config      json.RawMessage `json:"config"`          // the text as a string where it is no JSON
	Cause       string          `json:"cause,omitempty"` // why gRPC refuses it
	text        string
}

// serviceConfigDoc is one service config, or what was done to it, as JSON.
type serviceConfigDoc struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Service    string `json:"service"`
	serviceConfig
	Changed *bool  `json:"changed,omitempty"`
	Diff    string `json:"diff,omitempty"`
}

func newConfig(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config get|set|rm SERVICE",
		Short: "Show or change a service's gRPC service config",
		Long: "config reads and writes the gRPC service config of a service, at " + rollcall.ConfigPrefix + "SERVICE: its\n" +
			"balancing policy, time-outs, retries and health checks. Channels that resolve the\n" +
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
		Use:     "get SERVICE",
		Short:   "Show a service config",
		Long:    "get prints the service config, and says whether gRPC takes it. None is exit code 3.",
		Example: "  rollcall config get my-service",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := rollcall.ParseService(args[0])
			if err != nil {
				return err
			}
			return a.talk(cmd.Context(), func(ctx context.Context, client *clientv3.Client) error {
				config, err := storedConfig(ctx, client, service)
				if err != nil {
					return err
				}
				if config == nil {
					return noConfig(service)
				}
				return a.printConfig(service, config)
			})
		},
	}
}

func newConfigSet(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "set SERVICE [FILE|-]",
		Short: "Write a service config",
		Long: "set reads a service config, JSON, from a file or from standard input, has gRPC check it,\n" +
			"shows what changes and writes it. What gRPC refuses is not written. A policy of your\n" +
			"own is not known here: name one of gRPC's after it, for programs that do not have it.\n" +
			"If somebody else writes in between nothing is written, exit code 1.",
		Example: "  rollcall config set my-service policy.json\n" +
			`  echo '{"loadBalancingConfig":[{"round_robin":{}}]}' | rollcall config set my-service` + "\n" +
			"  rollcall config set my-service policy.json --dry-run",
		Args: usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := rollcall.ParseService(args[0])
			if err != nil {
				return err
			}
			text, err := a.read(args[1:])
			if err != nil {
				return err
			}
			if err := resolver.CheckServiceConfig(text); err != nil {
				return fail(exitUsage, "gRPC refuses the service config: %s; nothing was written", reason(err))
			}
			return a.setConfig(cmd.Context(), service, text, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check it and show what would change, and write nothing")
	return cmd
}

func newConfigRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm SERVICE",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove a service config",
		Long: "rm deletes the service config. Channels fall back to the resolver's default, or to\n" +
			"gRPC's. None to remove is exit code 3.",
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
				return a.printRemoved([]string{rollcall.ConfigPrefix + service}, resp.Header.Revision)
			})
		},
	}
}

func noConfig(service string) error {
	return fail(exitNotFound, "service %q has no service config: no key %q", service, rollcall.ConfigPrefix+service)
}

// storedConfig returns what etcd has, nil where there is none.
func storedConfig(ctx context.Context, client *clientv3.Client, service string) (*serviceConfig, error) {
	resp, err := client.Get(ctx, rollcall.ConfigPrefix+service)
	if err != nil {
		return nil, fmt.Errorf("read the service config of %q: %w", service, err)
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	c := newServiceConfig(service, string(resp.Kvs[0].Value), resp.Kvs[0].ModRevision)
	return &c, nil
}

func newServiceConfig(service, text string, modRevision int64) serviceConfig {
	c := serviceConfig{Key: rollcall.ConfigPrefix + service, ModRevision: modRevision, text: text}
	if err := resolver.CheckServiceConfig(text); err != nil {
		c.Cause = reason(err)
	}
	if c.Config = json.RawMessage(text); !json.Valid(c.Config) {
		c.Config, _ = json.Marshal(text)
	}
	return c
}

// indented is the config for people: JSON with a field a line.
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

// read returns the text of a file, or of standard input.
func (a *app) read(file []string) (string, error) {
	in, name := a.stdin, "standard input"
	if len(file) > 0 && file[0] != "-" {
		f, err := os.Open(file[0])
		if err != nil {
			return "", fail(exitUsage, "cannot read the service config: %v", err)
		}
		defer f.Close()
		in, name = f, file[0]
	}
	data, err := io.ReadAll(io.LimitReader(in, maxConfig+1))
	if err != nil {
		return "", fail(exitUsage, "cannot read the service config from %s: %v", name, err)
	}
	text := strings.TrimSpace(string(data))
	switch {
	case text == "":
		return "", fail(exitUsage, "%s is empty: want a service config, such as {\"loadBalancingConfig\":[{\"round_robin\":{}}]}", name)
	case len(data) > maxConfig:
		return "", fail(exitUsage, "%s has over %d bytes, more than etcd takes", name, maxConfig)
	}
	return text, nil
}

var errMeanwhile = errors.New("somebody else wrote it in between; nothing was written; see rollcall config get, and try again")

func (a *app) setConfig(ctx context.Context, service, text string, dryRun bool) error {
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		old, err := storedConfig(ctx, client, service)
		if err != nil {
			return err
		}
		config := newServiceConfig(service, text, 0)
		var before string
		var revision int64
		if old != nil {
			before, revision = old.text, old.ModRevision
		}
		config.ModRevision = revision
		changed := before != text
		if changed && !dryRun {
			resp, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(config.Key), "=", revision)).
				Then(clientv3.OpPut(config.Key, text)).Commit()
			if err != nil {
				return fmt.Errorf("write the service config of %q: %w", service, err)
			}
			if !resp.Succeeded {
				return fmt.Errorf("the service config of %q: %w", service, errMeanwhile)
			}
			config.ModRevision = resp.Header.Revision
		}
		a.expectService(ctx, client, service)
		return a.printConfigChange(service, old, &config, changed, dryRun)
	})
}

// expectService points out a config for a service that nobody has registered.
func (a *app) expectService(ctx context.Context, client *clientv3.Client, service string) {
	resp, err := client.Get(ctx, service+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err == nil && resp.Count == 0 {
		a.say("service %q has no endpoints; is the name right? see rollcall ls", service)
	}
}

func (a *app) printConfig(service string, config *serviceConfig) error {
	if config.Cause != "" {
		a.say("gRPC refuses it, channels keep what they had: %s", config.Cause)
	}
	if a.json() {
		return a.printJSON(serviceConfigDoc{APIVersion: apiVersion, Kind: "ServiceConfig", Service: service, serviceConfig: *config})
	}
	_, err := fmt.Fprint(a.stdout, safeLines(config.indented()))
	return err
}

func (a *app) printConfigChange(service string, before, after *serviceConfig, changed, dryRun bool) error {
	diff := udiff.Unified("before", "after", before.indented(), after.indented())
	if a.json() {
		written := changed && !dryRun
		return a.printJSON(serviceConfigDoc{APIVersion: apiVersion, Kind: "ServiceConfig", Service: service, serviceConfig: *after,
			Changed: &written, Diff: diff})
	}
	switch {
	case !changed:
		a.say("%q holds that already, since revision %d", after.Key, after.ModRevision)
	case dryRun:
		a.say("%q was not written: it is a dry run", after.Key)
	default:
		a.say("%q is written, at revision %d", after.Key, after.ModRevision)
	}
	_, err := fmt.Fprint(a.stdout, safeLines(diff))
	return err
}

// safeLines is safe for a text of several lines.
func safeLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = safe(line)
	}
	return strings.Join(lines, "\n")
}
