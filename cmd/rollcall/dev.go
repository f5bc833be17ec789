// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/rollcall-grpc/rollcall/internal/devetcd"
)

func newDev(a *app) *cobra.Command {
	var opts devetcd.Options
	var page string
	var untilEnd bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run an etcd for development, with a page",
		Long: "dev runs a single etcd member on the loopback interface until it is interrupted, and serves\n" +
			"a page about it. Its data is removed at the end, unless --data-dir is given.",
		Example: "  rollcall dev\n  rollcall dev --data-dir ./etcd-data --listen 127.0.0.1:12379",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if untilEnd {
				var cancel context.CancelFunc
				ctx, cancel = untilEOF(ctx, a.stdin)
				defer cancel()
			}
			return a.dev(ctx, opts, page)
		},
	}
	cmd.Flags().StringVar(&opts.DataDir, "data-dir", "", "directory for the data, which stays (default: a temporary directory)")
	_ = cmd.MarkFlagDirname("data-dir")
	cmd.Flags().StringVar(&opts.ClientAddr, "listen", "127.0.0.1:2379", "address for clients; with port 0, a free port is chosen")
	cmd.Flags().StringVar(&page, "console", "127.0.0.1:0", "loopback address of the page, which may write, too")
	cmd.Flags().BoolVar(&untilEnd, "until-eof", false, "stop when stdin ends, as when the parent process dies")
	_ = cmd.Flags().MarkHidden("until-eof")
	return cmd
}

func (a *app) dev(ctx context.Context, opts devetcd.Options, page string) error {
	server, err := devetcd.Start(ctx, opts)
	if err != nil {
		return err
	}
	console, err := beginConsole(server.Endpoint(), page)
	if err != nil {
		return errors.Join(err, server.Close())
	}
	defer console.end()
	fmt.Fprintf(a.stdout, "export ETCDCTL_ENDPOINTS=%[1]s\nexport ROLLCALL_ENDPOINTS=%[1]s\n", server.Endpoint())
	fmt.Fprintf(a.stderr, "etcd is ready at %s, data in %s; the page is at %s; stop it with Ctrl-C\n", server.Endpoint(), server.DataDir(), console.server.url())
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

// untilEOF returns a context that ends when stdin does: when the parent process ends or
// closes the pipe.
func untilEOF(ctx context.Context, stdin io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	return ctx, cancel
}
