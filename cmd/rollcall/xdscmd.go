// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rollcall-grpc/rollcall"
)

func newXDS(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "xds bootstrap|clients|explain",
		Short: "Set up and look at clients of rollcall serve",
		Long: "xds is about the clients of rollcall serve, which speak xDS: what they need to start, who\n" +
			"they are, and what they are sent.",
		Example: "  rollcall xds bootstrap --server 10.0.0.7:18000 > xds.json\n  rollcall xds clients\n" +
			"  rollcall xds explain my-service --node-zone eu-1",
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newXDSBootstrap(a), newXDSClients(a), newXDSExplain(a))
	return cmd
}

// locality is a rollcall.Locality in a document.
type locality struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Subzone string `json:"subzone,omitempty"`
}

// addLocality adds flags that say where a client is.
func addLocality(flags *pflag.FlagSet, l *rollcall.Locality, prefix string) {
	flags.StringVar(&l.Region, prefix+"region", "", "the client's region")
	flags.StringVar(&l.Zone, prefix+"zone", "", "the client's zone")
	flags.StringVar(&l.Subzone, prefix+"subzone", "", "the client's subzone; without any of the three: $ROLLCALL_REGION and so on")
}

// locality completes a locality from the environment. One that was given at all is taken as it
// is: a zone of the environment may be none of its region.
func (a *app) locality(given rollcall.Locality) (l rollcall.Locality) {
	if given != l {
		return given
	}
	l.Region, _ = a.getenv("ROLLCALL_REGION")
	l.Zone, _ = a.getenv("ROLLCALL_ZONE")
	l.Subzone, _ = a.getenv("ROLLCALL_SUBZONE")
	return l
}
