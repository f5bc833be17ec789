// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command go calls a greeter by any target that gRPC knows, and prints who answers:
//
//	GRPC_XDS_BOOTSTRAP=xds.json go run . xds:///my-service
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds" // the scheme "xds"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	count := flag.Int("count", 10, "how many calls; 0: until interrupted")
	interval := flag.Float64("interval", 0.5, "seconds between calls")
	flag.Parse()
	conn, err := grpc.NewClient(flag.Arg(0), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for i := 0; *count == 0 || i < *count; i++ {
		start := time.Now()
		result := greet(conn)
		fmt.Printf("%.1f ms: %s\n", time.Since(start).Seconds()*1000, result)
		time.Sleep(time.Duration(*interval * float64(time.Second)))
	}
}

func greet(conn *grpc.ClientConn) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	greeting := new(wrapperspb.StringValue)
	if err := conn.Invoke(ctx, "/greeter.Greeter/Greet", wrapperspb.String("Go"), greeting); err != nil {
		return fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message())
	}
	return greeting.GetValue()
}
