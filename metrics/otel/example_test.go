// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package otel_test

import (
	"log"

	"go.opentelemetry.io/otel"

	"github.com/rollcall-grpc/rollcall"
	rollcallotel "github.com/rollcall-grpc/rollcall/metrics/otel"
)

// A client exports what it follows, through the global MeterProvider.
func Example() {
	client, err := rollcall.NewClient(rollcall.ClientConfig("etcd-1:2379", "etcd-2:2379", "etcd-3:2379"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		log.Fatal(err)
	}
	registration, err := rollcallotel.Register(otel.GetMeterProvider(), directory, rollcallotel.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer registration.Unregister()
}
