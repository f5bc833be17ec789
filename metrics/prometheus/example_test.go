// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus_test

import (
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rollcall-grpc/rollcall"
	rollcallprom "github.com/rollcall-grpc/rollcall/metrics/prometheus"
)

// A server exports what it follows, what it has registered and what it asks of etcd.
func Example() {
	calls := rollcallprom.NewEtcdCalls()
	config := rollcall.ClientConfig("etcd-1:2379", "etcd-2:2379", "etcd-3:2379")
	config.DialOptions = append(config.DialOptions, calls.DialOptions()...)
	client, err := rollcall.NewClient(config)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		log.Fatal(err)
	}
	registrar, err := rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer registrar.Close()
	collector := rollcallprom.NewCollector(directory, rollcallprom.Options{Registrars: []*rollcall.Registrar{registrar}})
	prometheus.MustRegister(calls, collector)
	http.Handle("/metrics", promhttp.Handler())
	log.Fatal(http.ListenAndServe("localhost:9090", nil))
}
