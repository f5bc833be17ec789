// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/resolver"
)

func Example_careful() {
	client, err := rollcall.NewClient(rollcall.ClientConfig("127.0.0.1:2379"))
	if err == nil {
		_, err = careful(client)
	}
	fmt.Println(err)
}

func Example_keepRegistered() {
	client, err := rollcall.NewClient(rollcall.ClientConfig("127.0.0.1:2379"))
	if err == nil {
		err = keepRegistered(context.Background(), client)
	}
	fmt.Println(err)
}

func ExampleTLSFiles() {
	creds, err := rollcall.TLSFiles{CA: "ca.pem", Cert: "client.pem", Key: "client-key.pem"}.Credentials()
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg := rollcall.ClientConfig("etcd-1:2379", "etcd-2:2379", "etcd-3:2379")
	cfg.DialOptions = append(cfg.DialOptions, grpc.WithTransportCredentials(creds))
	client, err := rollcall.NewClient(cfg)
	fmt.Println(client, err)
	// Output: invalid CA file "ca.pem": open ca.pem: no such file or directory
}

func ExampleEncode() {
	value, err := rollcall.Encode("10.0.0.7:50051", map[string]any{"zone": "eu-1"})
	fmt.Println(string(value), err)
	inst, err := rollcall.Decode(&mvccpb.KeyValue{Key: []byte("my-service/a"), Value: value})
	fmt.Println(inst.Addr, inst.Attributes().Locality.Zone, err)
	// Output:
	// {"Op":0,"Addr":"10.0.0.7:50051","Metadata":{"zone":"eu-1"}} <nil>
	// 10.0.0.7:50051 eu-1 <nil>
}

func ExampleHostPort() {
	fmt.Println(rollcall.HostPort("10.0.0.7"))
	// Output:
	// invalid address "10.0.0.7": it must be host:port, for example 10.0.0.7:50051
}

func ExampleDirectory() {
	client, err := rollcall.NewClient(rollcall.ClientConfig("127.0.0.1:2379"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		fmt.Println(err)
		return
	}
	sub, err := directory.Subscribe("my-service")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var last *rollcall.Snapshot
	for {
		snap, err := sub.Next(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, change := range snap.Diff(last) {
			fmt.Println(change.Key, "went", change.New == nil)
		}
		last = snap
	}
}

func keepRegistered(ctx context.Context, client *clientv3.Client) error {
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		return err
	}
	registrar, err := rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{TTL: 10 * time.Second})
	if err != nil {
		return err
	}
	defer registrar.Close() // removes what is registered
	registration, err := registrar.Register("my-service", rollcall.Endpoint{Addr: "10.0.0.7:50051"})
	if err != nil {
		return err
	}
	if err := registration.Wait(ctx); err != nil { // until it is in etcd
		return err
	}
	<-ctx.Done() // Drain and Update change it meanwhile
	return nil
}

func careful(client *clientv3.Client) (grpcresolver.Builder, error) {
	directory, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{
		CacheDir:         "/var/cache/my-program",               // a process that starts while etcd is down begins with this
		SelfPreservation: rollcall.SelfPreservation{Share: 0.5}, // more than half vanished within 5 min and did not drain: call them for 5 min more
		Logger:           slog.Default(),
	})
	if err != nil {
		return nil, err
	}
	return resolver.NewBuilderWithOptions(directory, resolver.Options{
		Policy: rollcall.AllowCIDR(netip.MustParsePrefix("10.0.0.0/8")), // dial nothing else
	})
}
