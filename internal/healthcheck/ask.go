// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// anyCertificate is the TLS of checks.
var anyCertificate = &tls.Config{InsecureSkipVerify: true}

// dial connects to a server. Its errors are short: the check names the address.
func dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err == nil {
		return conn, nil
	}
	if call := (*os.SyscallError)(nil); errors.As(err, &call) {
		err = call.Err
	}
	return nil, fmt.Errorf("connect to %s: %w", addr, err)
}

func dialTCP(ctx context.Context, addr string) error {
	conn, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// askGRPC asks grpc.health.v1 on a connection of its own: a new client of the server could not call
// it if it accepted none, and there is no backoff to wait for.
func askGRPC(ctx context.Context, addr, service string, secure bool) error {
	tcp, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer tcp.Close()
	once := make(chan net.Conn, 1)
	once <- tcp
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(anyCertificate)
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case tcp := <-once:
				return tcp, nil
			default:
				return nil, net.ErrClosed
			}
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	switch s := status.Convert(err); {
	case err == nil && resp.Status == healthpb.HealthCheckResponse_SERVING:
		return nil
	case err == nil:
		return fmt.Errorf("gRPC health of %q is %v", service, resp.Status)
	case s.Code() == codes.Unimplemented:
		return errors.New("the server has no grpc.health.v1 service; use a tcp check, or add the service to the server")
	case s.Code() == codes.NotFound:
		return fmt.Errorf("the server's grpc.health.v1 knows no service %q", service)
	default:
		return fmt.Errorf("gRPC health of %q: %v: %s", service, s.Code(), s.Message())
	}
}

// answered is the error of a server that has answered in time, even if not to the end.
type answered string

func (a answered) Error() string { return string(a) }

// getHTTP makes a request on a connection of its own, without a proxy.
func getHTTP(ctx context.Context, target string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "rollcall")
	client := http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: anyCertificate, MaxResponseHeaderBytes: 64 << 10,
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return dial(ctx, addr) }},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	} else if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 200 && resp.StatusCode < 400 {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4*maxDetail)) // what has come in time
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if line == "" {
		return answered("HTTP status " + resp.Status)
	}
	return answered("HTTP status " + resp.Status + ": " + line)
}
