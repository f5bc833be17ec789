// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

const xdsAbout = "Each subject serves the same etcd in a process of its own, with the same options of gRPC's server, but that Rollcall's has xds.ServerOption as well. Clients are another process: each is a stream on a connection of its own, asks for the Listener, Cluster and endpoints of a service as gRPC does, and accepts what it is sent. The caches of go-control-plane are fed by a Directory, and rendered by Rollcall."

// fanOuts are the layouts of the xDS scenarios.
func fanOuts() (all []scenario) {
	for _, l := range []struct{ services, size, streams int }{{1, 1000, 100}, {1, 1000, 1000}, {100, 10, 5000}} {
		title := fmt.Sprintf("xDS: one change, %s of %s, %s streams", number(l.services)+" services", number(l.size), number(l.streams))
		if l.services == 1 {
			title = fmt.Sprintf("xDS: one change, a service of %s, %s streams", number(l.size), number(l.streams))
		}
		all = append(all, scenario{
			name: fmt.Sprintf("xds/%dx%dx%d", l.services, l.size, l.streams), title: title,
			about:    xdsAbout + " One endpoint changes its address, six times, about 0.4 s apart; figures are medians. CPU is the server's, time is from the put to the last stream that is sent the change, memory is the server's heap and stacks after a garbage collection.",
			subjects: []string{ours, linear, snapshots},
			metrics:  []metric{{name: "CPU", unit: "ms"}, {name: "time", unit: "ms"}, {name: "memory", unit: "KiB a stream"}},
			run:      func(address, subject string) sample { return fanOut(address, subject, l.services, l.size, l.streams) },
			rounds:   2, few: map[string]int{snapshots: 1}, // of six changes each
			slow: l.streams != 100,
		})
	}
	return append(all, scenario{
		name: "xds/burst", title: "xDS: 100 changes a second, a service of 1,000, 1,000 streams",
		about:    xdsAbout + " For 5 s. Bytes are those of endpoints sent, as a share of what all changes would take if each were sent by itself. CPU is the server's, of one core. The lag is from the last acknowledgement to the last stream that is sent the last change. Meanwhile a new stream is opened ten times a second, and asks for the endpoints at once; the answers are whole.",
		subjects: []string{ours, linear, snapshots},
		metrics: []metric{{name: "bytes", unit: "%"}, {name: "CPU", unit: "%"}, {name: "lag", unit: "ms"}, {name: "first answer, p50", unit: "ms"},
			{name: "first answer, max", unit: "ms"}},
		run:    xdsBurst,
		rounds: 1,
		slow:   true,
	})
}

// startFleet fills services and starts a server of them and its clients.
func startFleet(address, subject string, services, size, streams int) (srv *xdsServer, f *fleet, group string, memory float64) {
	group = fmt.Sprintf("xds-%d-%d", services, size)
	write(address, subject, group, "fill each", services, size)
	var names []string
	for i := range services {
		names = append(names, each(group, i))
	}
	srv = startXDS(address, subject, names)
	f = &fleet{server: srv.address}
	of := func(i int) string { return names[i%services] }
	f.connect(0, services, of) // each service is loaded
	memory = srv.ask("memory")
	f.connect(services, streams-services, of)
	time.Sleep(500 * time.Millisecond)
	return srv, f, group, (srv.ask("memory") - memory) / float64(streams-services)
}

func fanOut(address, subject string, services, size, streams int) sample {
	const changes = 6
	srv, f, group, memory := startFleet(address, subject, services, size, streams)
	w := writer{client: connect(address), subject: subject, service: each(group, services/2)}
	var spent, took []float64
	for i := range changes {
		wait := f.await(streams/services, addr(changed+i))
		before := srv.ask("cpu")
		began := time.Now()
		must(w.client.Do(context.Background(), w.put(w.key(0), changed+i)))
		took = append(took, ms(wait().Sub(began)))
		time.Sleep(100 * time.Millisecond) // until all is acknowledged
		spent = append(spent, (srv.ask("cpu")-before)/1e6)
		time.Sleep(300 * time.Millisecond) // so that the next one comes alone
	}
	srv.stop(f)
	return sample{"CPU": quantile(spent, 0.5), "time": quantile(took, 0.5), "memory": memory / 1024}
}

func xdsBurst(address, subject string) sample {
	const size, streams, changes, rate = 1000, 1000, 500, 100
	srv, f, group, _ := startFleet(address, subject, 1, size, streams)
	service := each(group, 0)
	var over atomic.Bool
	firsts := make(chan []float64)
	bytes, before := f.bytes.Load(), srv.ask("cpu")
	began := time.Now()
	go func() {
		var took []float64
		for i := 0; !over.Load(); i++ {
			c := (&fleet{server: srv.address}).dial(fmt.Sprintf("new-%d", i), service)
			time.Sleep(100 * time.Millisecond)
			asked := time.Now()
			c.open(resource.EndpointType)
			_, _, _, err := c.receive()
			check(err)
			took = append(took, ms(time.Since(asked)))
			check(c.conn.Close())
		}
		firsts <- took
	}()
	wait := f.await(streams, addr(changed+changes-1))
	write(address, subject, service, "rate", size, changes, rate, int(time.Now().Add(100*time.Millisecond).UnixMilli()))
	last := time.Now()
	at := wait()
	spent, lasted := srv.ask("cpu")-before, time.Since(began)
	over.Store(true)
	took := <-firsts
	srv.stop(f)
	return sample{"bytes": 100 * float64(f.bytes.Load()-bytes) / float64(changes*streams*f.largest.Load()), "CPU": 100 * spent / float64(lasted),
		"lag": ms(at.Sub(last)), "first answer, p50": quantile(took, 0.5), "first answer, max": quantile(took, 1)}
}
