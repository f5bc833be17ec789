// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// maxImport bounds a file: it is read as a whole.
const maxImport = 64 << 20

// imported tells what an import did, or would do.
type imported struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	DryRun     bool              `json:"dryRun"`
	Services   []importedService `json:"services"` // those that differ
}

type importedService struct {
	serviceName
	Revision     int64  `json:"revision,omitempty"` // of the last transaction
	Transactions int    `json:"transactions"`
	Keys         int    `json:"keys"` // that were put or deleted
	Diff         string `json:"diff"`
}

type importFlags struct {
	importRules
	file   string
	dryRun bool
	yes    bool
	ttl    time.Duration
}

func newImport(a *app) *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import --file FILE|-",
		Short: "Write services from a file of export",
		Long: "import reads what rollcall export wrote, YAML or JSON, checks all of it, shows the difference and\n" +
			"writes what differs. Each service is written in one transaction, if the keys are as they were read,\n" +
			"so that nothing newer is lost; over 128 keys take several, which import says. What the file does not\n" +
			"have stays, unless --prune is given, for the services in the file. An instance needs an addr, and may\n" +
			"have an id and metadata; a service may have a config.\n\n" +
			"A key under a lease is kept by a server, and not changed without --force; with it the server takes the\n" +
			"value on until it restarts. What was exported as \"leased\" is not written if it is absent: its server\n" +
			"registers it. --ttl writes it under a lease that is not renewed; a server that registers it meanwhile\n" +
			"takes it over.\n\n" +
			"Before a service is left without an endpoint, import asks on a terminal, and elsewhere wants --yes.",
		Example: "  rollcall import -f services.yaml --dry-run\n  rollcall export my-service | rollcall import -f -",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.file == "" {
				return fail(exitUsage, "-f is missing: the file to import, or - for standard input")
			}
			if f.lease = cmd.Flags().Changed("ttl"); f.lease {
				if err := checkTTL(f.ttl); err != nil {
					return err
				}
			}
			return a.importFile(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "the file, or - for standard input")
	markFiles(cmd.Flags(), "file")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "show the difference, but write nothing")
	cmd.Flags().BoolVar(&f.prune, "prune", false, "delete keys and configs of the file's services that the file does not have")
	cmd.Flags().BoolVar(&f.force, "force", false, "change and prune keys under a lease, too")
	cmd.Flags().DurationVar(&f.ttl, "ttl", 0, "write absent instances that were leased under a lease of this time, which is not renewed")
	addYes(cmd.Flags(), &f.yes)
	return cmd
}

func (a *app) importFile(ctx context.Context, f importFlags) error {
	name, text, err := a.readFile(ctx, f.file, "services", maxImport)
	if err != nil {
		return err
	}
	wanted, err := readManifest(name, text)
	if err != nil {
		return err
	}
	var plans []importPlan
	if err := a.talkLong(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		plans, err = planImports(ctx, client, wanted, f.importRules)
		return err
	}); err != nil {
		return err
	}
	done := imported{APIVersion: apiVersion, Kind: "Import", DryRun: f.dryRun, Services: []importedService{}}
	var refused []string
	left := 0
	for i := range plans {
		p := &plans[i]
		refused, left = append(refused, p.refused...), left+p.left
		diff, err := p.diff()
		if err != nil {
			return err
		}
		if !a.json() {
			if err := a.write(safeLines(diff)); err != nil {
				return err
			}
		}
		if len(p.changes) > 0 {
			done.Services = append(done.Services, importedService{serviceName: nameOf(p.service), Keys: len(p.changes), Diff: diff})
		}
		a.warnConfig(p.service, p.after.Config.GetValue())
	}
	if left > 0 {
		a.say("%s: whether etcd has it or not; see --force and --ttl", plural.Count(left, "endpoint of the file was under a lease, and is left to its server", "endpoints of the file were under a lease, and are left to their servers"))
	}
	if len(refused) > 0 {
		return fail(exitOther, "%s under a lease, and the file has other values: %s; nothing was written; "+
			"change them with --force, until the servers restart, or take them out of the file", plural.Count(len(refused), "key is kept by a server", "keys are kept by servers"), shorten(fmt.Sprintf("%q", refused), 200))
	}
	if !f.dryRun {
		if err := a.confirmed(ctx, f.yes, func(yes bool) error { return a.writeImport(ctx, plans, f, yes, &done) }); err != nil {
			return err
		}
	}
	return a.printImported(done, left)
}

func planImports(ctx context.Context, client *clientv3.Client, wanted manifest, rules importRules) (plans []importPlan, err error) {
	names := make([]string, 0, len(wanted.Services))
	for _, s := range wanted.Services {
		names = append(names, s.name())
	}
	if len(names) == 0 {
		return nil, nil
	}
	stored, _, err := edit.Read(ctx, client, names)
	if err != nil {
		return nil, err
	}
	return planImport(wanted, stored, rules)
}

// writeImport writes service by service, and records what it has done.
func (a *app) writeImport(ctx context.Context, plans []importPlan, f importFlags, yes bool, done *imported) error {
	if err := emptiesOne(plans); err != nil && !yes {
		return err
	}
	return a.talkLong(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		lease := clientv3.LeaseID(clientv3.NoLease)
		defer func() {
			if err != nil {
				a.revokeUnused(ctx, client, lease)
			}
		}()
		at := 0
		for _, p := range plans {
			if len(p.changes) == 0 {
				continue
			}
			if lease == clientv3.NoLease && slices.ContainsFunc(p.changes, func(c importChange) bool { return c.leased }) {
				granted, err := a.grantLease(ctx, client, f.ttl)
				if err != nil {
					return err
				}
				lease = granted.ID
			}
			committed, err := edit.Commit(ctx, client, p.steps(lease))
			written := plural.Count(at, "service", "services") + " and " + plural.Count(committed.Transactions, "transaction", "transactions") + " of this one"
			switch {
			case errors.Is(err, edit.ErrChanged):
				return fail(exitOther, "service %q was %w: %s are written; import again", p.service, err, written)
			case err != nil:
				return fmt.Errorf("import service %q, after %s: %w", p.service, written, err)
			}
			done.Services[at].Revision, done.Services[at].Transactions = committed.Revision, committed.Transactions
			at++
		}
		return nil
	})
}

// revokeUnused revokes a lease that no key is under: revoked, it would take its keys with it.
func (a *app) revokeUnused(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) {
	if lease == clientv3.NoLease {
		return
	}
	asking, cancel := a.deadline(context.WithoutCancel(ctx))
	defer cancel()
	if held, err := client.TimeToLive(asking, lease, clientv3.WithAttachedKeys()); err == nil && len(held.Keys) == 0 {
		a.revoke(ctx, client, lease)
	}
}

// printImported prints what was written, and how many endpoints of the file were left to their servers.
func (a *app) printImported(done imported, left int) error {
	keys, several := 0, []string{}
	for _, s := range done.Services {
		keys += s.Keys
		if s.Transactions > 1 {
			several = append(several, fmt.Sprintf("%q (%d transactions)", s.Service, s.Transactions))
		}
	}
	what := plural.Count(keys, "key", "keys") + " of " + plural.Count(len(done.Services), "service", "services")
	switch {
	case keys == 0 && left > 0:
		a.say("nothing was written")
	case keys == 0:
		a.say("etcd has all of it already; nothing was written")
	case done.DryRun:
		a.say("%s would be written: this is a dry run", what)
	default:
		a.say("%s %s written", what, plural.Form(keys, "was", "were"))
	}
	if len(several) > 0 {
		a.say("too many keys for one transaction, so that clients may have seen a part of them: %s", strings.Join(several, ", "))
	}
	if a.json() {
		return a.printJSON(done)
	}
	return nil
}
