// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
)

// bootstrap is the file that a gRPC client of xDS starts with, as gRFC A27 has it.
type bootstrap struct {
	XDSServers     []bootstrapServer             `json:"xds_servers"`
	Authorities    map[string]bootstrapAuthority `json:"authorities,omitempty"`
	Node           bootstrapNode                 `json:"node"`
	ServerListener string                        `json:"server_listener_resource_name_template"`
}

type bootstrapServer struct {
	URI string `json:"server_uri"`
	// Credentials are in the order of preference. There is one kind only: Node takes an insecure
	// one wherever it stands.
	Credentials []bootstrapCredentials `json:"channel_creds"`
	Features    []string               `json:"server_features"`
}

type bootstrapCredentials struct {
	Type   string        `json:"type"`
	Config *bootstrapTLS `json:"config,omitempty"`
}

type bootstrapTLS struct {
	CA   string `json:"ca_certificate_file,omitempty"`
	Cert string `json:"certificate_file,omitempty"`
	Key  string `json:"private_key_file,omitempty"`
}

type bootstrapAuthority struct {
	ClientListener string `json:"client_listener_resource_name_template"`
}

type bootstrapNode struct {
	ID       string            `json:"id"`
	Locality bootstrapLocality `json:"locality"` // Node fails without
}

type bootstrapLocality struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Subzone string `json:"sub_zone,omitempty"`
}

// bootstrapFlags are the flags of xds bootstrap.
type bootstrapFlags struct {
	servers     []string
	authorities []string
	nodeID      string
	locality    rollcall.Locality
	tls         rollcall.TLSFiles
}

func newXDSBootstrap(a *app) *cobra.Command {
	var f bootstrapFlags
	cmd := &cobra.Command{
		Use:   "bootstrap [--server ADDR]...",
		Short: "Print the file that a client of xDS needs",
		Long: "bootstrap prints the file that gRPC clients in all languages read at their start, by the\n" +
			"environment variable GRPC_XDS_BOOTSTRAP. It is about the servers, which may be down: a\n" +
			"message on stderr says so.\n\n" +
			"ADDR is HOST:PORT, dns:///NAME:PORT or unix:PATH. For several replicas, one DNS name works\n" +
			"in every language; of several --server only Go uses the second. The node's id tells\n" +
			"clients apart in rollcall xds clients; by default it is the host's name and a random part,\n" +
			"so make the file on the host where it is used, not for an image.\n\n" +
			"With --authority a target such as xds://NAME/my-service works too (C++, Python and Ruby\n" +
			"may need GRPC_EXPERIMENTAL_XDS_FEDERATION=true). TLS to the server is for Go only.",
		Example: "  rollcall xds bootstrap > xds.json\n" +
			"  rollcall xds bootstrap --server dns:///rollcall.example:18000 --zone eu-1 > xds.json\n" +
			"  GRPC_XDS_BOOTSTRAP=xds.json ./my-client xds:///my-service",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.locality = a.locality(f.locality)
			return a.bootstrap(cmd.Context(), &f)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.servers, "server", []string{defaultXDSAddr}, "where rollcall serve is reached; repeatable")
	flags.StringArrayVar(&f.authorities, "authority", nil, "an authority of xds://AUTHORITY/ targets; repeatable")
	flags.StringVar(&f.nodeID, "node-id", "", "the client's id (default: the host's name and a random part)")
	addLocality(flags, &f.locality, "")
	flags.StringVar(&f.tls.CA, "tls-ca", "", "file, on the client, of the CA that signs the server's certificate")
	flags.StringVar(&f.tls.Cert, "tls-cert", "", "file of the client's certificate")
	flags.StringVar(&f.tls.Key, "tls-key", "", "file of the client's key")
	markFiles(flags, "tls-ca", "tls-cert", "tls-key")
	return cmd
}

// usesTLS reports whether clients speak TLS to a server: to a unix socket they never do.
func (f *bootstrapFlags) usesTLS(server string) bool {
	return f.tls != rollcall.TLSFiles{} && !strings.HasPrefix(server, "unix:")
}

func (a *app) bootstrap(ctx context.Context, f *bootstrapFlags) error {
	file, err := f.file()
	if err != nil {
		return err
	}
	if err := a.printJSON(file); err != nil {
		return err
	}
	if len(f.servers) > 1 {
		a.say("only Go clients use another server than the first; for other languages give one DNS name for all")
	}
	a.checkServers(ctx, f)
	return nil
}

// file returns the bootstrap file.
func (f *bootstrapFlags) file() (*bootstrap, error) {
	if (f.tls.Cert == "") != (f.tls.Key == "") {
		return nil, fail(exitUsage, "--tls-cert and --tls-key go together; give both")
	}
	file := &bootstrap{
		Node:           bootstrapNode{f.nodeID, bootstrapLocality(f.locality)},
		ServerListener: "grpc/server?xds.resource.listening_address=%s",
	}
	if file.Node.ID == "" {
		file.Node.ID = newNodeID()
	}
	for _, server := range f.servers {
		if err := checkServerAddr(server); err != nil {
			return nil, err
		}
		creds := bootstrapCredentials{Type: "insecure"}
		if f.usesTLS(server) {
			creds = bootstrapCredentials{"tls", &bootstrapTLS{f.tls.CA, f.tls.Cert, f.tls.Key}}
		}
		file.XDSServers = append(file.XDSServers, bootstrapServer{server, []bootstrapCredentials{creds}, []string{"xds_v3"}})
	}
	for _, name := range f.authorities {
		if name == "" || strings.ContainsAny(name, "/?#%") {
			return nil, fail(exitUsage, "--authority %q: not a name for xds://NAME/my-service", name)
		}
		if file.Authorities == nil {
			file.Authorities = make(map[string]bootstrapAuthority)
		}
		file.Authorities[name] = bootstrapAuthority{"xdstp://" + name + "/envoy.config.listener.v3.Listener/%s"}
	}
	return file, nil
}

// newNodeID returns an id that no other call returns.
func newNodeID() string {
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	host, err := os.Hostname()
	if err != nil {
		host = "client"
	}
	return host + "-" + hex.EncodeToString(random)
}

// checkServerAddr checks an address that clients are to dial.
func checkServerAddr(server string) error {
	bad := func(why string) error {
		return fail(exitUsage, "--server %q: %s; write HOST:PORT, dns:///NAME:PORT or unix:PATH", server, why)
	}
	if path, ok := strings.CutPrefix(server, "unix:"); ok {
		if strings.Trim(path, "/") == "" {
			return bad("the path is missing")
		}
		return nil
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(strings.TrimPrefix(server, "dns:"), "///"))
	if err != nil {
		return bad("it is no address")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return bad("the port must be a number from 1 to 65535")
	}
	if ip, err := netip.ParseAddr(host); host == "" || strings.Contains(host, "/") || err == nil && ip.IsUnspecified() {
		return bad("it names no host")
	}
	return nil
}

// checkServers warns of servers that do not answer.
func (a *app) checkServers(ctx context.Context, f *bootstrapFlags) {
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	causes := make([]error, len(f.servers))
	var checking sync.WaitGroup
	for i, server := range f.servers {
		checking.Go(func() { causes[i] = f.checkServer(ctx, server) })
	}
	checking.Wait()
	for i, cause := range causes {
		if cause != nil {
			a.say("warning: server %s: %s", f.servers[i], plain(cause))
		}
	}
}

// checkServer asks for the health of a server. One that does not serve health may be of use.
func (f *bootstrapFlags) checkServer(ctx context.Context, server string) error {
	creds := insecure.NewCredentials()
	if f.usesTLS(server) {
		var err error
		if creds, err = f.tls.Credentials(); err != nil {
			return fmt.Errorf("cannot check whether it answers: %w", err)
		}
	}
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented || err == nil && resp.Status == healthpb.HealthCheckResponse_SERVING:
		return nil
	case err == nil:
		return errors.New("it is not ready; see its /readyz")
	}
	return fmt.Errorf("%w; is rollcall serve running there?", err)
}
