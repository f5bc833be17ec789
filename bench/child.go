// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

var nopLogger = zap.NewNop()

// must ends the process if its measurement has failed; the parent shows the text.
func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is the main function of the processes of a measurement.
func child(args []string) {
	switch args[0] {
	case "measure":
		for _, sc := range scenarios {
			if sc.name == args[2] {
				check(json.NewEncoder(os.Stdout).Encode(sc.run(args[1], args[3])))
				return
			}
		}
		check(fmt.Errorf("no scenario %q", args[2]))
	case "write":
		await(args[1])
		w := writer{client: connect(args[1]), subject: args[2], service: args[3]}
		var numbers []int
		for _, arg := range args[5:] {
			numbers = append(numbers, must(strconv.Atoi(arg)))
		}
		for _, sent := range w.do(args[4], numbers) {
			fmt.Println(sent.UnixNano())
		}
	case "etcd":
		etcdChild(args[1:])
	case "xds":
		xdsChild(args[1], args[2], args[3:])
	case "serve":
		l := must(net.Listen("tcp", "127.0.0.1:0"))
		fmt.Println(l.Addr())
		go func() { // until the parent is gone
			_, _ = os.Stdin.Read(make([]byte, 1))
			os.Exit(0)
		}()
		check(grpc.NewServer().Serve(l))
	}
}

// write makes another process write to a service for a subject, and returns the times that
// the process reports.
func write(address, subject, service, what string, numbers ...int) (times []time.Time) {
	args := []string{"child", "write", address, subject, service, what}
	for _, n := range numbers {
		args = append(args, strconv.Itoa(n))
	}
	cmd := exec.Command(must(os.Executable()), args...)
	cmd.Stderr = os.Stderr
	for line := range strings.Lines(string(must(cmd.Output()))) {
		times = append(times, time.Unix(0, must(strconv.ParseInt(strings.TrimSpace(line), 10, 64))))
	}
	return times
}

// await waits until a server listens at an address.
func await(address string) {
	for {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// writer writes the keys of a service.
type writer struct {
	client           *clientv3.Client
	subject, service string
	named            bool // ids are names; else the first address of a key, the default of a Registrar
}

// key returns the i-th key.
func (w writer) key(i int) string {
	if w.named {
		return fmt.Sprintf("%s/host-%06d", w.service, i)
	}
	return w.service + "/" + addr(i)
}

// each returns the name of the i-th of several services.
func each(services string, i int) string { return fmt.Sprintf("%s-%04d", services, i) }

// of returns the writer of the i-th of several services.
func (w writer) of(i int) writer {
	w.service = each(w.service, i)
	return w
}

func (w writer) put(key string, i int) clientv3.Op {
	return clientv3.OpPut(key, value(w.subject, addr(i), i))
}

// do writes and returns the time of the last acknowledgement, or of each sending, or of the
// beginning: see each case.
func (w writer) do(what string, numbers []int) []time.Time {
	ctx := context.Background()
	switch what {
	case "fill": // n: the service has n endpoints, and no others
		w.fill(numbers[0])
	case "fill each": // services, n
		w.parallel(numbers[0], func(i int) { w.of(i).fill(numbers[1]) })
	case "change each": // services: the first endpoint of each, as fast as possible
		answers := time.Now()
		w.parallel(numbers[0], func(i int) {
			must(w.client.Do(ctx, w.put(w.of(i).key(0), changed)))
		})
		return []time.Time{answers}
	case "join": // from, n: as fast as possible
		w.parallel(numbers[1], func(i int) { must(w.client.Do(ctx, w.put(w.key(numbers[0]+i), numbers[0]+i))) })
	case "again": // endpoints, n: the existing values
		w.parallel(numbers[1], func(i int) { must(w.client.Do(ctx, w.put(w.key(i%numbers[0]), i%numbers[0]))) })
	case "change": // key, n, milliseconds after each acknowledgement, the first change: another address each time
		var sent []time.Time
		for i := range numbers[1] {
			sent = append(sent, time.Now())
			must(w.client.Do(ctx, w.put(w.key(numbers[0]), changed+numbers[3]+i)))
			time.Sleep(time.Duration(numbers[2]) * time.Millisecond)
		}
		return sent
	case "roll": // n, a second: each goes, and another comes
		began := time.Now()
		for i := range numbers[0] {
			must(w.client.Delete(ctx, w.key(i)))
			must(w.client.Do(ctx, w.put(w.key(changed+i), changed+i)))
			time.Sleep(time.Until(began.Add(time.Duration(i+1) * time.Second / time.Duration(numbers[1]))))
		}
	case "rate": // keys, n, a second, milliseconds since 1970: another address each time, at its time from then on
		return w.rate(numbers[0], numbers[1], numbers[2], time.UnixMilli(int64(numbers[3])))
	case "update": // step, n, a second: every step-th key gets another address
		began := time.Now()
		for i := range numbers[1] {
			must(w.client.Do(ctx, w.put(w.key(i*numbers[0]), changed+i)))
			time.Sleep(time.Until(began.Add(time.Duration(i+1) * time.Second / time.Duration(numbers[2]))))
		}
	}
	return []time.Time{time.Now()}
}

// rate changes keys, each put at its time, and returns when each was sent. Neighbours in time
// are not neighbours in the key space.
func (w writer) rate(keys, n, rate int, begin time.Time) []time.Time {
	sent := make([]time.Time, n)
	var wg sync.WaitGroup
	for i := range n {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		put := w.put(w.key(i*617%keys), changed+i)
		wg.Go(func() {
			sent[i] = time.Now()
			must(w.client.Do(context.Background(), put))
		})
	}
	wg.Wait()
	return sent
}

// fill makes the service have exactly n endpoints. It does nothing if the first key shows that
// the service is unchanged: every workload changes the first key, or restores the service.
func (w writer) fill(n int) {
	ctx := context.Background()
	there := must(w.client.Get(ctx, w.service+"/", clientv3.WithPrefix(), clientv3.WithLimit(1)))
	if n > 0 && int(there.Count) == n && string(there.Kvs[0].Key) == w.key(0) && string(there.Kvs[0].Value) == value(w.subject, addr(0), 0) {
		return
	}
	must(w.client.Delete(ctx, w.service+"/", clientv3.WithPrefix()))
	for i := 0; i < n; i += 100 {
		var ops []clientv3.Op
		for j := i; j < min(i+100, n); j++ {
			ops = append(ops, w.put(w.key(j), j))
		}
		must(w.client.Txn(ctx).Then(ops...).Commit())
	}
}

// changed is the first index of the addresses that keys get by changes.
const changed = 1_000_000

func (w writer) parallel(n int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}

// cpu returns the CPU time that this process has used.
func cpu() time.Duration {
	var r syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
