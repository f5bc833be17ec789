// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/serving"
)

// stored returns all that etcd holds, by key.
func stored(e *lab.Env) map[string]string {
	resp, err := e.Client.Get(e.Ctx, "", clientv3.WithPrefix())
	e.OK(err)
	all := make(map[string]string)
	for _, kv := range resp.Kvs {
		all[string(kv.Key)] = fmt.Sprintf("%s at %d", kv.Value, kv.ModRevision)
	}
	return all
}

func TestA9RangeOptions(t *testing.T) {
	t.Parallel()
	options := map[string][]clientv3.OpOption{
		"WithFromKey":                     {clientv3.WithFromKey()},
		"WithPrefix":                      {clientv3.WithPrefix()},
		"WithPrefix and WithFromKey":      {clientv3.WithPrefix(), clientv3.WithFromKey()},
		"WithRange":                       {clientv3.WithRange("zzz")},
		"WithLimit":                       {clientv3.WithLimit(1)},
		"WithRev":                         {clientv3.WithRev(1)},
		"WithSort":                        {clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)},
		"WithCountOnly":                   {clientv3.WithCountOnly()},
		"WithCreatedNotify":               {clientv3.WithCreatedNotify()},
		"WithFilterPut":                   {clientv3.WithFilterPut()},
		"an option that sets another key": {func(op *clientv3.Op) { op.WithKeyBytes([]byte("other/a")) }},
		"an option that sets the range":   {func(op *clientv3.Op) { op.WithRangeBytes([]byte{0}) }},
		"an option that makes another operation": {func(op *clientv3.Op) {
			*op = clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpDelete("other/", clientv3.WithPrefix())}, nil)
		}},
	}
	lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
		m := e.Manager()
		for _, key := range []string{e.Key("a"), e.Key("a/b"), e.Key("z"), "other/a", "zzz"} {
			e.Put(key, `{"Addr":"1.2.3.4:80"}`)
		}
		before := stored(e)
		good := endpoints.NewAddUpdateOpts(e.Key("good"), endpoints.Endpoint{Addr: "1.2.3.4:80"})
		attempt := func(name string, try func() error) {
			err := func() (err error) {
				defer func() {
					if p := recover(); p != nil {
						err = fmt.Errorf("panic: %v", p)
					}
				}()
				return try()
			}()
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), fmt.Sprintf("%q", e.Key("a"))) {
				e.Failf("%s: got %v, want InvalidArgument naming %s", name, err, e.Key("a"))
			}
			e.Same(name+": what etcd holds", stored(e), before)
		}
		for name, opts := range options {
			update := endpoints.NewDeleteUpdateOpts(e.Key("a"), opts...)
			attempt("delete, "+name, func() error { return m.DeleteEndpoint(e.Ctx, e.Key("a"), opts...) })
			attempt("delete in an update, "+name, func() error { return m.Update(e.Ctx, []*endpoints.UpdateWithOpts{good, update}) })
			update = endpoints.NewAddUpdateOpts(e.Key("a"), endpoints.Endpoint{Addr: "1.2.3.4:80"}, opts...)
			attempt("add, "+name, func() error { return m.AddEndpoint(e.Ctx, e.Key("a"), update.Endpoint, opts...) })
			attempt("add in an update, "+name, func() error { return m.Update(e.Ctx, []*endpoints.UpdateWithOpts{good, update}) })
		}

		// What fits the operation is passed on.
		lease, err := e.Client.Grant(e.Ctx, 60)
		e.OK(err)
		e.OK(m.AddEndpoint(e.Ctx, e.Key("a"), endpoints.Endpoint{Addr: "1.2.3.4:81"}, clientv3.WithLease(lease.ID), clientv3.WithPrevKV()))
		e.OK(m.AddEndpoint(e.Ctx, e.Key("a"), endpoints.Endpoint{Addr: "1.2.3.4:82"}, clientv3.WithIgnoreLease()))
		e.Same("the lease", clientv3.LeaseID(e.Stored(e.Key("a")).Lease), lease.ID)
		e.OK(m.DeleteEndpoint(e.Ctx, e.Key("a"), clientv3.WithPrevKV()))
		delete(before, e.Key("a"))
		e.Same("what etcd holds at the end", stored(e), before)
	})
}

func TestA10ServiceConfigAsService(t *testing.T) {
	t.Parallel()
	const config = `{"loadBalancingConfig":[{"round_robin":{}}]}`
	lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
		e.Put("_grpc_config/svc", config)
		before := stored(e)
		for _, service := range []string{"_grpc_config", "_grpc_config/", "_grpc_config/a"} {
			target := strings.TrimSuffix(service, "/")
			key := rollcall.Key(target, "svc")
			err := e.ManagerOf(e.Client, target).AddEndpoint(e.Ctx, key, endpoints.Endpoint{Addr: "1.2.3.4:80"})
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "rollcall config set") {
				e.Failf("a manager's add to %s: got %v, want InvalidArgument naming the command", key, err)
			}
			ep := rollcall.Endpoint{ID: "svc", Addr: "1.2.3.4:80"}
			registrar, err := rollcall.NewRegistrar(lab.Directory(e.T, e.Client), rollcall.RegistrarOptions{})
			e.OK(err)
			_, err = registrar.Register(service, ep)
			refused(e, "Register", err)
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			e.OK(err)
			refused(e, "serving.Run", serving.Run(e.Ctx, grpc.NewServer(), lis, serving.Options{Registrar: registrar, Service: service, Endpoint: ep}))
			e.OK(errors.Join(lis.Close(), registrar.Shutdown(context.WithoutCancel(e.Ctx))))
		}
		e.Same("what etcd holds", stored(e), before)

		// What an older version wrote there can be taken out.
		e.OK(e.ManagerOf(e.Client, "_grpc_config").DeleteEndpoint(e.Ctx, "_grpc_config/svc"))
		e.Same("what etcd holds at the end", len(stored(e)), 0)
	})
}

func refused(e *lab.Env, what string, err error) {
	if input := new(rollcall.InputError); !errors.As(err, &input) || !strings.Contains(input.Reason, "rollcall config set") {
		e.Failf("%s: got %v, want an InputError naming the command", what, err)
	}
}
