// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package serving_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/serving"
)

// A server of two services, with a readiness probe.
func ExampleServer() {
	client, err := rollcall.NewClient(rollcall.ClientConfig("127.0.0.1:2379"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	srv := grpc.NewServer() // your services here
	server, err := serving.New(srv, serving.Options{Client: client, Services: []string{"my-service", "my-other-service"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	http.Handle("/ready", server.Readiness())
	go http.ListenAndServe("127.0.0.1:8080", nil)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := server.ListenAndServe(ctx, "127.0.0.1:50051"); err != nil {
		fmt.Println(err)
	}
}
