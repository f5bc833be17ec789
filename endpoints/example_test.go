// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package endpoints_test

import (
	"context"
	"fmt"
	"log"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/endpoints"
)

func ExampleNewManager() {
	client, err := clientv3.NewFromURL("http://localhost:2379")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	em, err := endpoints.NewManager(client, "foo/bar/my-service")
	if err != nil {
		log.Fatal(err)
	}
	err = em.AddEndpoint(context.TODO(), "foo/bar/my-service/e1", endpoints.Endpoint{Addr: "10.0.0.7:50051"})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleManager_newWatchChannel() {
	var em endpoints.Manager // of NewManager
	ctx, cancel := context.WithCancel(context.TODO())
	defer cancel()
	updates, err := em.NewWatchChannel(ctx)
	if err != nil {
		log.Fatal(err)
	}
	all := make(endpoints.Key2EndpointMap)
	for message := range updates {
		for _, u := range message {
			switch u.Op {
			case endpoints.Add:
				all[u.Key] = u.Endpoint
			case endpoints.Delete:
				delete(all, u.Key)
			}
		}
		fmt.Println(len(all), "endpoints")
	}
}

// Endpoints that change together go into one Update.
func ExampleUpdateWithOpts() {
	updates := []*endpoints.UpdateWithOpts{
		endpoints.NewDeleteUpdateOpts("foo/bar/my-service/e1"),
		endpoints.NewAddUpdateOpts("foo/bar/my-service/e2", endpoints.Endpoint{Addr: "10.0.0.8:50051"}),
	}
	for _, u := range updates {
		fmt.Printf("add %t: %s %q\n", u.Op == endpoints.Add, u.Key, u.Endpoint.Addr)
	}
	// Output:
	// add false: foo/bar/my-service/e1 ""
	// add true: foo/bar/my-service/e2 "10.0.0.8:50051"
}
