// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/reflector"
	"github.com/rollcall-grpc/rollcall/internal/topic"
)

func newTestStore() *store {
	return newStore(topic.New(topic.Options[Snapshot]{Reason: func() error { return nil }}), "s/", SelfPreservation{}, slog.New(slog.DiscardHandler))
}

// fill lists n endpoints into a store.
func fill(s *store, n int) {
	l := s.NewList()
	for i := range n {
		l.Add([]*mvccpb.KeyValue{{Key: fmt.Appendf(nil, "s/%06d", i), Value: fmt.Appendf(nil, `{"Op":0,"Addr":"10.0.0.1:%d"}`, i), ModRevision: int64(i + 1)}})
	}
	l.Replace(reflector.Version{Revision: int64(n), Epoch: 1}, nil)
}

// What is applied shows when it is published, and not before.
func TestStorePublishes(t *testing.T) {
	s := newTestStore()
	fill(s, 3)
	before := s.topic.Latest()
	config := &clientv3.Event{Type: clientv3.EventTypePut, Kv: &mvccpb.KeyValue{Key: []byte(ConfigPrefix + "s"), Value: []byte("{}"), ModRevision: 6}}
	s.Apply([]*clientv3.Event{put("x", `{"Addr":"x:1"}`, 4), del("000001", 5)})
	s.Apply([]*clientv3.Event{config})
	if s.topic.Latest() != before {
		t.Error("shown before it was published")
	}
	s.Publish(6)
	snap := s.topic.Latest()
	if snap.Len() != 3 || snap.Instance("s/x") == nil || snap.Instance("s/000001") != nil || snap.Revision() != 6 || before.Len() != 3 {
		t.Errorf("got %+v", snap)
	}
	if configs := snap.ServiceConfigs(); len(configs) != 1 || configs[0].Service != "s" || len(snap.Invalid()) != 0 {
		t.Errorf("service configs %+v, invalid %+v", configs, snap.Invalid())
	}
	if keys, newest := s.Size(); keys != 4 || newest != 6 {
		t.Errorf("size %d, %d, want 4, 6", keys, newest)
	}
	if events, published := s.counts.events.Load(), s.counts.published.Load(); events != 3 || published != 2 {
		t.Errorf("%d events, %d publications, want 3, 2", events, published)
	}
}

func newRetainingStore(share float64) *store {
	return newStore(topic.New(topic.Options[Snapshot]{Reason: func() error { return nil }}), "s/", SelfPreservation{Share: share, Retain: time.Minute}, slog.New(slog.DiscardHandler))
}

func put(id, value string, revision int64) *clientv3.Event {
	return &clientv3.Event{Type: clientv3.EventTypePut, Kv: &mvccpb.KeyValue{Key: []byte("s/" + id), Value: []byte(value), ModRevision: revision}}
}

func del(id string, revision int64) *clientv3.Event {
	return &clientv3.Event{Type: clientv3.EventTypeDelete, Kv: &mvccpb.KeyValue{Key: []byte("s/" + id), ModRevision: revision}}
}

// What is applied and not published yet is still there: it is not retained as well.
func TestStoreRetainsWhatIsPublished(t *testing.T) {
	s := newRetainingStore(0.3)
	defer s.stop()
	fill(s, 3)
	s.Apply([]*clientv3.Event{del("000000", 4), del("000001", 5), del("000002", 6)})
	s.expire()
	if snap := s.topic.Latest(); snap.Len() != 3 || len(snap.retained) != 0 {
		t.Errorf("before it was published: %d, %d retained", snap.Len(), len(snap.retained))
	}
	s.Publish(6)
	if snap := s.topic.Latest(); snap.Len() != 0 || len(snap.retained) != 3 {
		t.Errorf("afterwards: %d, %d retained", snap.Len(), len(snap.retained))
	}
}

// Of what is published together the last change of a key tells whether its endpoint is retained, and as
// what.
func TestStoreRetainsTheLast(t *testing.T) {
	const moved, draining = `{"Addr":"moved:1"}`, `{"Addr":"a:1","Metadata":{"status":"draining"}}`
	for _, row := range []struct {
		name   string
		events []*clientv3.Event
		want   string // the address that is retained
	}{
		{"deleted", []*clientv3.Event{del("000000", 2)}, "10.0.0.1:0"},
		{"put, deleted", []*clientv3.Event{put("000000", moved, 2), del("000000", 3)}, "moved:1"},
		{"deleted, put", []*clientv3.Event{del("000000", 2), put("000000", moved, 3)}, ""},
		{"deleted, put, deleted", []*clientv3.Event{del("000000", 2), put("000000", moved, 3), del("000000", 4)}, "moved:1"},
		{"draining, deleted", []*clientv3.Event{put("000000", draining, 2), del("000000", 3)}, ""},
		{"deleted, invalid", []*clientv3.Event{del("000000", 2), put("000000", "-", 3)}, ""},
	} {
		s := newRetainingStore(0.3)
		fill(s, 1)
		s.Apply(row.events)
		s.Publish(9)
		got := ""
		for _, inst := range s.topic.Latest().retained {
			got += inst.Addr
		}
		if got != row.want {
			t.Errorf("%s: %q is retained, want %q", row.name, got, row.want)
		}
		s.stop()
	}
}

// Of several changes of a key that are published together the last one holds, and one that it made
// while draining is remembered.
func TestStoreFolds(t *testing.T) {
	s := newTestStore()
	fill(s, 2)
	was := s.topic.Latest().Instance("s/000001")
	s.Apply([]*clientv3.Event{
		put("000001", `{"Addr":"a:1","Metadata":{"status":"draining"}}`, 3), put("x", `{"Addr":"x:1"}`, 4), del("000000", 5),
		put("x", `{"Addr":"x:2"}`, 6), del("000001", 7), put("000000", `{"Addr":"b:1"}`, 8),
	})
	s.Publish(8)
	snap := s.topic.Latest()
	if snap.Len() != 2 || snap.Instance("s/x").Addr != "x:2" || snap.Instance("s/000000").Addr != "b:1" {
		t.Errorf("got %s", render(snap))
	}
	if last := s.lastValue(was); !last.Draining() || last.ModRevision != 3 {
		t.Errorf("deleted as %+v", last)
	}
	if totals := s.totals(); totals.Events != 6 || totals.Conflated != 5 || len(s.pending) != 0 {
		t.Errorf("totals %+v, %d pending", totals, len(s.pending))
	}
}

// However many changes of however many keys are published together, the last one of each holds.
func TestStoreFoldsMany(t *testing.T) {
	s := newTestStore()
	fill(s, 0)
	last := make(map[string]string)
	for i := range 1000 {
		id, addr := fmt.Sprint(i*7%20), fmt.Sprintf("host:%d", i)
		s.Apply([]*clientv3.Event{put(id, fmt.Sprintf(`{"Addr":%q}`, addr), int64(2+i))})
		last["s/"+id] = addr
	}
	s.Publish(1001)
	for key, addr := range last {
		if got := s.topic.Latest().Instance(key); got.Addr != addr {
			t.Errorf("%s is at %s, want %s", key, got.Addr, addr)
		}
	}
}

// A consistency check finds every kind of value that differs.
func TestStoreDifferences(t *testing.T) {
	s := newTestStore()
	kv := func(key, value string, revision int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: revision}
	}
	same := []*mvccpb.KeyValue{kv("s/a", `{"Addr":"a:1"}`, 1), kv("s/bad", "x", 2)}
	list := func(kvs ...*mvccpb.KeyValue) reflector.List {
		l := s.NewList()
		l.Add(same)
		l.Add(kvs)
		return l
	}
	list(kv("s/old", `{"Addr":"o:1"}`, 3), kv("s/spoilt", "y", 4), kv("s/w", `{"Addr":"w:1"}`, 5)).Replace(reflector.Version{Revision: 5, Epoch: 1}, nil)
	diffs := list(kv("s/new", `{"Addr":"n:1"}`, 6), kv("s/spoilt", "y", 7), kv("s/w", `{"Addr":"w:2"}`, 5)).Differences()
	for _, key := range []string{"s/old", "s/new", "s/spoilt", "s/w"} {
		if diffs[key] == (reflector.Difference{}) {
			t.Errorf("%s is not found to differ: %v", key, diffs)
		}
		delete(diffs, key)
	}
	if len(diffs) != 0 {
		t.Errorf("found to differ: %v", diffs)
	}
}

// What a member without a leader has replaces a fallback only if it is not older.
func TestStoreTakesNoOlderList(t *testing.T) {
	s := newTestStore()
	s.topic.SetFallback(&Snapshot{prefix: "s/", revision: 10, stale: &Staleness{Cause: errNotConfirmed}})
	if s.NewList().Replace(reflector.Version{Revision: 9, Epoch: 1}, ErrNoAnswer) {
		t.Error("an older list was taken")
	}
	if !s.NewList().Replace(reflector.Version{Revision: 10, Epoch: 1}, ErrNoAnswer) || s.topic.Latest().Staleness() == nil {
		t.Errorf("got %+v, want revision 10, stale", s.topic.Latest())
	}
	if !s.NewList().Replace(reflector.Version{Revision: 2, Epoch: 2}, nil) || s.topic.Latest().Staleness() != nil || s.topic.Unconfirmed() != nil {
		t.Errorf("got %+v, want revision 2, live", s.topic.Latest())
	}
}
