// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"
)

const etcdctlHelp = `Flags and variables of etcdctl work with rollcall, or are refused; none is ignored without a word.
ETCDCTL_ENDPOINTS is --endpoints and so on, and ROLLCALL_ENDPOINTS wins over it.

The same as in etcdctl:
  --endpoints, --cacert, --cert, --key, --user, --password, --dial-timeout, and
  --discovery-srv, -d         domain whose SRV records name etcd's endpoints
  --discovery-srv-name        suffix of the service that is looked up
  --insecure-discovery=false  use only endpoints with TLS of those found, with a certificate for the domain
  --insecure-transport=false  use TLS, even without a certificate and https://
  --insecure-skip-tls-verify  use TLS, but do not check etcd's certificate: for tests only
  --auth-jwt-token            a token instead of a user
  --keepalive-time, --keepalive-timeout
                              when the connection is probed; gRPC does not do it more often than each 10s
  --max-request-bytes, --max-recv-bytes
                              sizes of requests and responses
  --debug                     log what gRPC does, to standard error

With differences:
  --command-timeout           time for answers on top of --dial-timeout; none by default
  --write-out, -w             json is -o json; table and simple are -o table; fields and protobuf are refused

Refused:
  --hex                       -o json has keyBase64 beside each key that is not UTF-8
  ETCDCTL_API                 must be 3, if it is set

Other variables that begin with ETCDCTL_ or ROLLCALL_ cause a warning.`

func newEtcdctlTopic() *cobra.Command {
	return &cobra.Command{
		Use:     "etcdctl",
		Short:   "What becomes of etcdctl's flags and variables",
		Long:    etcdctlHelp,
		Example: "  rollcall ls --endpoints 127.0.0.1:2379 --command-timeout 5s -w json",
	}
}

// writeOut is etcdctl's flag for the output.
type writeOut struct{ a *app }

func (w writeOut) String() string { return "" }
func (w writeOut) Type() string   { return "string" }

func (w writeOut) Set(format string) error {
	output, err := etcdctlOutput(format)
	if err == nil {
		w.a.output = output
	}
	return err
}

// etcdctlOutput returns the output that is etcdctl's.
func etcdctlOutput(format string) (string, error) {
	switch format {
	case "json", "table":
		return format, nil
	case "simple":
		return "table", nil
	case "fields", "protobuf":
		return "", fmt.Errorf("rollcall does not write etcdctl's %s: want json, table or simple; --output and ROLLCALL_OUTPUT win over it", format)
	}
	return "", fmt.Errorf("%q is not a format of etcdctl: want json, table or simple", format)
}

// checkAPI refuses etcd's old API, which etcdctl could be asked for.
func (a *app) checkAPI() error {
	if version, _ := a.getenv("ETCDCTL_API"); version != "" && version != "3" {
		return fail(exitUsage, "ETCDCTL_API is %q: rollcall speaks version 3 only; unset it", version)
	}
	return nil
}

// otherVariables are variables that are no global flags.
var otherVariables = []string{"ROLLCALL_CONFIG", "ROLLCALL_CONTEXT", "ROLLCALL_REGION", "ROLLCALL_ZONE", "ROLLCALL_SUBZONE", "ETCDCTL_API"}

// warnOfVariables says which variables look like settings and are none.
func (a *app) warnOfVariables() {
	known := slices.Clone(otherVariables)
	for _, prefix := range []string{"ROLLCALL_", "ETCDCTL_"} {
		for _, name := range settingNames {
			known = append(known, a.environment(prefix).label(name))
		}
	}
	for _, variable := range a.environ {
		name, value, _ := strings.Cut(variable, "=")
		if value != "" && (strings.HasPrefix(name, "ROLLCALL_") || strings.HasPrefix(name, "ETCDCTL_")) && !slices.Contains(known, name) {
			a.say("the environment variable %s is not known and has no effect%s", name, didYouMean(name, known))
		}
	}
}

// logAll writes what gRPC and Rollcall log to standard error.
func (a *app) logAll() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2WithVerbosity(a.stderr, a.stderr, a.stderr, 4))
	slog.SetDefault(slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for _, name := range settingNames {
		if from, ok := a.origins[name]; ok {
			a.say("%s is set by %s", name, from.label)
		}
	}
}

// discover looks up the endpoints that the SRV records of a domain name.
func (a *app) discover(ctx context.Context) error {
	switch nearer, err := a.nearer("endpoints", "discovery-srv"); {
	case err != nil:
		return err
	case nearer != "discovery-srv" || a.discoverySRV == "":
		a.discoverySRV = ""
		return nil
	}
	var found []string
	var problem error
	answered := false
	for _, kind := range []struct{ service, scheme string }{{"etcd-client-ssl", "https"}, {"etcd-client", "http"}} {
		if a.discoverySRVName != "" {
			kind.service += "-" + a.discoverySRVName
		}
		records, err := untilDone(ctx, func() ([]*net.SRV, error) { // a query that is not answered does not end with ctx
			_, records, err := a.lookupSRV(ctx, kind.service, "tcp", a.discoverySRV)
			return records, err
		})
		switch {
		case isSignal(err):
			return err
		case err != nil:
			problem = both(problem, err)
		default:
			answered = true
		}
		for _, r := range records {
			endpoint := kind.scheme + "://" + net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
			if kind.scheme == "http" && !a.insecureDiscovery {
				problem = both(problem, fmt.Errorf("%s has no TLS, and --insecure-discovery is false", endpoint))
				continue
			}
			found = append(found, endpoint)
		}
	}
	if len(found) == 0 {
		err := fmt.Errorf("%s %s: %w", a.label("discovery-srv"), a.discoverySRV, cmp.Or(problem, errors.New("no endpoint")))
		if !answered {
			a.endpoints = []string{a.discoverySRV}
			return fail(exitUnreachable, "%w", err)
		}
		return err
	}
	a.endpoints = found
	return nil
}

// both returns an error that is two in one line.
func both(first, second error) error {
	if first == nil {
		return second
	}
	return fmt.Errorf("%w; %w", first, second)
}
