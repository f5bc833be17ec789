// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
)

func newDrain(a *app) *cobra.Command {
	var dryRun, force bool
	var which selection
	cmd := &cobra.Command{
		Use:   "drain SERVICE ID|HOST:PORT...",
		Short: "Take endpoints out of new calls",
		Long: "drain sets \"status\": \"draining\" in the endpoints' metadata: clients send them no new\n" +
			"calls, and running calls go on. If all endpoints of a service drain, clients call them\n" +
			"nevertheless, so the last one is drained only with --force; of services within SERVICE,\n" +
			"SERVICE/..., as rollcall ls lists them, each keeps one as well. Up to " + strconv.Itoa(edit.MaxKeys) + " endpoints are marked\n" +
			"in one transaction, all or none; a larger change takes several, and clients may see a part of it first.\n\n" +
			selectorHelp + "\n\n" +
			"A running server keeps the mark until rollcall undrain. When its process restarts, after a\n" +
			"crash too, the server registers anew and takes calls: for a host that must stay out of\n" +
			"use, stop the server as well.\n\n" +
			allServicesHelp + "\n\n" + previewHelp,
		Example: "  rollcall drain my-service blue-1 --dry-run\n  rollcall drain my-service 10.0.0.7:50051 10.0.0.8:50051\n" +
			"  rollcall drain my-service -l zone=eu-1\n  rollcall drain -A -l host=node-11 --dry-run\n  rollcall drain -A -l host=node-11",
		Args: usageArgs(which.args()),
		RunE: func(cmd *cobra.Command, args []string) error {
			e := metadataEdit{preview: "DrainPreview", field: "status", value: rollcall.StatusDraining, already: "draining", dryRun: dryRun}
			if !force {
				e.check = keepServing
			}
			return a.edit(cmd.Context(), args, which, e)
		},
	}
	which.addFlag(cmd.Flags())
	which.addAllServicesFlag(cmd.Flags())
	addDryRun(cmd, &dryRun)
	cmd.Flags().BoolVar(&force, "force", false, "drain the last serving endpoint too")
	return cmd
}

// keepServing is edit.KeepServing, with the way out.
func keepServing(snap *rollcall.Snapshot, keys []edit.Key) (relied []*rollcall.Instance, err error) {
	if relied, err = edit.KeepServing(snap, keys); err != nil {
		err = fail(exitOther, "%w, or use --force", err)
	}
	return relied, err
}
