// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command readiness is a gRPC server with a readiness probe, and metrics for Prometheus, on an HTTP port.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/examples/greeter"
	rollcallprom "github.com/rollcall-grpc/rollcall/metrics/prometheus"
	"github.com/rollcall-grpc/rollcall/serving"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:50051", "where it is called")
	probe := flag.String("http", "127.0.0.1:8080", "address of /readyz and /metrics")
	etcd := flag.String("etcd", "127.0.0.1:2379", "address of etcd")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *probe, *etcd); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, addr, probe, etcd string) error {
	calls := rollcallprom.NewEtcdCalls() // what is asked of etcd
	config := rollcall.ClientConfig(etcd)
	config.DialOptions = append(config.DialOptions, calls.DialOptions()...)
	client, err := rollcall.NewClient(config)
	if err != nil {
		return err
	}
	defer client.Close()
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		return err
	}
	registrar, err := rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{})
	if err != nil {
		return err
	}
	defer registrar.Close()

	grpcServer := grpc.NewServer()
	greeter.Register(grpcServer, greeter.Named("ready"))
	server, err := serving.New(grpcServer, serving.Options{Registrar: registrar, Service: "greeter"})
	if err != nil {
		return err
	}

	metrics := prometheus.NewRegistry()
	metrics.MustRegister(calls, rollcallprom.NewCollector(directory, rollcallprom.Options{Registrars: []*rollcall.Registrar{registrar}}))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.Handle("/readyz", server.Readiness())
	lis, err := net.Listen("tcp", probe)
	if err != nil {
		return err
	}
	defer lis.Close() // the last: while it drains, the server answers that it is not ready
	go func() {
		if err := http.Serve(lis, mux); !errors.Is(err, net.ErrClosed) {
			log.Print(err)
		}
	}()
	return server.ListenAndServe(ctx, addr)
}
