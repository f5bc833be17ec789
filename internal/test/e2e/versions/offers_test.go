// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestOffers measures what versions of etcd do not have in common, and what that comes to.
func TestOffers(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := lab.Client(t, etcd.Endpoints()...)
	member, err := client.Status(lab.Context(t), etcd.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	offer(t, "", true, member.Version, "")
	offer(t, "lists of more than 1,000 keys", streams(t, client), "as a stream", "in pages of 5,000 keys")
	listsAll(t, client)
	offer(t, "quota in `rollcall status`", member.DbSizeQuota > 0, "shown", "not known, and it says so: etcd does not tell it")
	auth := etcd.EnableAuth(t)
	auth.AddUser("user", "secret", etcdtest.ReadWrite("mine/"))
	root, user := auth.Client(t, "root"), auth.Client(t, "user")
	offer(t, "number of leases in `rollcall status`, for a user of some services", countsLeases(t, root, user), "shown", "not known, and it says so: etcd refuses it")
	offer(t, "rights in transactions within transactions", !writesNested(t, user), "checked", "NOT CHECKED: who may log in may write any key; upgrade to 3.4.42, 3.5.28, 3.6.9 or newer")
}

// offer notes a row of the table: what holds with the version, or what without.
func offer(t *testing.T, row string, has bool, with, without string) {
	t.Helper()
	if !has {
		with = without
	}
	lab.Note(t, "%s: %s", row, with)
}

// streams reports whether etcd has RangeStream.
func streams(t *testing.T, client *clientv3.Client) bool {
	t.Helper()
	stream, err := pb.NewKVClient(client.ActiveConnection()).RangeStream(lab.Context(t), &pb.RangeRequest{Key: []byte("a")})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil && status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
	return err == nil
}

// listsAll checks that a list has all keys, however many pages it takes.
func listsAll(t *testing.T, client *clientv3.Client) {
	t.Helper()
	const batch, batches = 120, 60 // of etcd's 128 operations in a transaction; 7,200 keys
	for i := range batches {
		var puts []clientv3.Op
		for j := range batch {
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("large/%02d-%03d", i, j), fmt.Sprintf(`{"Addr":"10.0.%d.%d:80"}`, i, j)))
		}
		if _, err := client.Txn(lab.Context(t)).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := directory.List(lab.Context(t), "large")
	if err != nil {
		t.Fatal(err)
	}
	if snap.Len() != batch*batches {
		t.Errorf("%d endpoints listed, want %d", snap.Len(), batch*batches)
	}
	for inst := range snap.All() {
		var i, j int
		if _, err := fmt.Sscanf(inst.Addr, "10.0.%d.%d:80", &i, &j); err != nil || inst.Key != fmt.Sprintf("large/%02d-%03d", i, j) || inst.ModRevision == 0 {
			t.Errorf("listed %s at %s, revision %d", inst.Key, inst.Addr, inst.ModRevision)
		}
	}
}

// countsLeases reports whether etcd tells its leases to a user who may not read the keys of all.
func countsLeases(t *testing.T, root, user *clientv3.Client) bool {
	t.Helper()
	lease, err := root.Grant(lab.Context(t), 60)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Put(lab.Context(t), "theirs/a", "v", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	_, err = user.Leases(lab.Context(t))
	return permitted(t, err)
}

// writesNested reports whether a user may write what is forbidden in a transaction within another.
func writesNested(t *testing.T, user *clientv3.Client) bool {
	t.Helper()
	if _, err := user.Put(lab.Context(t), "theirs/b", "v"); permitted(t, err) {
		t.Fatal("the user may write any key")
	}
	_, err := user.Txn(lab.Context(t)).Then(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("theirs/b", "v")}, nil)).Commit()
	return permitted(t, err)
}

// permitted reports whether etcd did what was asked, or refused it.
func permitted(t *testing.T, err error) bool {
	t.Helper()
	if err != nil && !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Fatal(err)
	}
	return err == nil
}
