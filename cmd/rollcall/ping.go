// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// pingWorkers is how many endpoints are asked at once.
const pingWorkers = 64

// pinged is what came of pinging a service.
type pinged struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	serviceName
	Revision  int64    `json:"revision"`
	Answering int      `json:"answering"`
	Silent    int      `json:"silent"`
	LeftOut   int      `json:"leftOut"` // invalid and disallowed ones, which are not dialled
	Endpoints []answer `json:"endpoints"`
}

type pingFlags struct {
	timeout         time.Duration
	tls, skipVerify bool
	ca              string
}

func newPing(a *app) *cobra.Command {
	var flags pingFlags
	var which selection
	cmd := &cobra.Command{
		Use:   "ping SERVICE [ID|HOST:PORT]...",
		Short: "Ask each endpoint of a service whether it answers",
		Long: "ping dials every endpoint of a service from here: first TCP, then a gRPC call to its health\n" +
			"service. It prints who answers, how fast (the call on an open connection, beside the time\n" +
			"to connect), and what the health service says. One without a health service answers all the\n" +
			"same. Connections are in plaintext unless a --tls flag is given. If an endpoint that is\n" +
			"listed as serving does not answer, the exit code is 1.\n\n" +
			"With ids, addresses or a selector it dials those endpoints alone.\n" +
			selectorHelp,
		Example: "  rollcall ping my-service\n  rollcall ping my-service --tls-ca ca.pem --timeout 5s\n  rollcall ping my-service -l status=draining",
		Args:    usageArgs(which.optionalArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, find, err := which.parse(args)
			if err != nil {
				return err
			}
			creds, err := flags.credentials()
			if err != nil {
				return err
			}
			return a.ping(cmd.Context(), service, find, flags.timeout, creds)
		},
	}
	which.addFlag(cmd.Flags())
	flags.add(cmd)
	return cmd
}

func (f *pingFlags) add(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.timeout, "timeout", 2*time.Second, "time within which an endpoint must answer")
	cmd.Flags().BoolVar(&f.tls, "tls", false, "dial endpoints with TLS, and verify them by the system's CAs")
	cmd.Flags().StringVar(&f.ca, "tls-ca", "", "dial endpoints with TLS, and verify them by the CAs in this file")
	markFiles(cmd.Flags(), "tls-ca")
	cmd.Flags().BoolVar(&f.skipVerify, "tls-skip-verify", false, "dial endpoints with TLS, and accept any certificate")
}

// credentials returns what the flags ask for, and checks them.
func (f pingFlags) credentials() (credentials.TransportCredentials, error) {
	switch {
	case f.timeout <= 0:
		return nil, fail(exitUsage, "--timeout %v: must be positive, such as 2s", f.timeout)
	case f.skipVerify && f.ca != "":
		return nil, fail(exitUsage, "--tls-ca and --tls-skip-verify exclude each other; give one")
	case f.skipVerify:
		return credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}), nil
	case f.tls || f.ca != "":
		creds, err := rollcall.TLSFiles{CA: f.ca}.Credentials()
		if err != nil {
			return nil, fail(exitUsage, "--tls-ca: %v", err)
		}
		return creds, nil
	}
	return insecure.NewCredentials(), nil
}

func (a *app) ping(ctx context.Context, service string, find edit.Finder, timeout time.Duration, creds credentials.TransportCredentials) error {
	p := pinged{APIVersion: apiVersion, Kind: "Ping", serviceName: nameOf(service), Endpoints: []answer{}}
	err := a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		dir, err := rollcall.SharedDirectory(client)
		if err != nil {
			return err
		}
		snap, err := list(ctx, dir, service)
		if err != nil {
			return err
		}
		p.Revision = snap.Revision()
		rows, err := foundRows(ctx, client, snap, inventory.Instances(snap, inventory.Under(service)), find)
		if err != nil {
			return err
		}
		for _, inst := range rows {
			if inst.Cause != "" {
				p.LeftOut++
				continue
			}
			p.Endpoints = append(p.Endpoints, answer{ID: inst.ID, Addr: inst.Addr, Status: inst.Status})
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.pingAll(ctx, p.Endpoints, timeout, creds)
	if cause := context.Cause(ctx); isSignal(cause) {
		return cause
	}
	failed := false
	for _, e := range p.Endpoints {
		if e.Answers {
			p.Answering++
			continue
		}
		p.Silent++
		failed = failed || e.Status == inventory.Serving
	}
	if err := a.printPing(p); err != nil {
		return err
	}
	if failed {
		return &exitError{code: exitOther}
	}
	return nil
}

// pingAll asks the endpoints, several at once, and tells on a terminal how far it has come.
func (a *app) pingAll(ctx context.Context, endpoints []answer, timeout time.Duration, creds credentials.TransportCredentials) {
	var done atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var wg sync.WaitGroup
		defer wg.Wait()
		slots := make(chan struct{}, pingWorkers)
		for i := range endpoints {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				ctx, cancel := context.WithTimeout(ctx, timeout)
				defer cancel()
				endpoints[i].ask(ctx, creds)
				done.Add(1)
			})
		}
	}()
	if widthOf(a.stderr) == 0 {
		<-ended
		return
	}
	ticks := time.NewTicker(200 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			fmt.Fprintf(a.stderr, "\r%d of %s asked", done.Load(), plural.Count(len(endpoints), "endpoint", "endpoints"))
		case <-ended:
			fmt.Fprint(a.stderr, "\r\x1b[K") // clears the line
			return
		}
	}
}

func (a *app) printPing(p pinged) error {
	if a.json() {
		return a.printJSON(p)
	}
	rows := [][]string{{"ID", "ADDRESS", "STATUS", "CONNECT", "CALL", "ANSWER"}}
	for _, e := range p.Endpoints {
		rows = append(rows, []string{e.ID, e.Addr, string(e.Status), secondsText(e.ConnectSeconds), secondsText(e.CallSeconds), e.text()})
	}
	summary := fmt.Sprintf("%d of %s", p.Answering, plural.Count(len(p.Endpoints), "endpoint answers", "endpoints answer"))
	if p.LeftOut > 0 {
		summary += fmt.Sprintf("; not dialled, since clients leave them out: %d", p.LeftOut)
	}
	return a.write(table(rows...) + "\n" + summary + "\n")
}

func secondsText(seconds float64) string {
	if seconds == 0 {
		return ""
	}
	return latencyText(time.Duration(seconds * float64(time.Second)))
}
