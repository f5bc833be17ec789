// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/rollcall-grpc/rollcall/internal/devetcd"
)

func newDev(a *app) *cobra.Command {
	var opts devetcd.Options
	var untilEnd bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run an etcd for development",
		Long: "dev runs an etcd of one member on this machine's loopback until it is interrupted.\n" +
			"Without --data-dir its data goes with it.",
		Example: "  rollcall dev\n  rollcall dev --data-dir ./etcd-data --listen 127.0.0.1:12379",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if untilEnd {
				var cancel context.CancelFunc
				ctx, cancel = untilEOF(ctx, a.stdin)
				defer cancel()
			}
			return a.dev(ctx, opts)
		},
	}
	cmd.Flags().StringVar(&opts.DataDir, "data-dir", "", "keep the data here (default: a directory that is removed)")
	cmd.Flags().StringVar(&opts.ClientAddr, "listen", "127.0.0.1:2379", "address for clients; port 0 takes a free one")
	cmd.Flags().BoolVar(&untilEnd, "until-eof", false, "stop when the input ends, for a parent that may die")
	_ = cmd.Flags().MarkHidden("until-eof")
	return cmd
}

func (a *app) dev(ctx context.Context, opts devetcd.Options) error {
	server, err := devetcd.Start(ctx, opts)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "export ETCDCTL_ENDPOINTS=%[1]s\nexport ROLLCALL_ENDPOINTS=%[1]s\n", server.Endpoint())
	fmt.Fprintf(a.stderr, "etcd is ready at %s, data in %s; stop it with Ctrl-C\n", server.Endpoint(), server.DataDir())
	select {
	case <-ctx.Done():
		err = nil
	case err = <-server.Err():
		err = fmt.Errorf("etcd ended: %w", err)
	}
	if closed := server.Close(); err == nil {
		err = closed
	}
	return err
}

// untilEOF returns a context that ends when stdin does: a child whose parent is gone,
// or wants it to stop, has no more input.
func untilEOF(ctx context.Context, stdin io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	return ctx, cancel
}
