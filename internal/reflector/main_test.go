// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errStarting = errors.New("nothing was heard yet")

// mapStore is the obvious Store: two maps. It complains of what no Reflector may do.
type mapStore struct {
	t         testing.TB
	busy      atomic.Int32 // calls under way, Size and Differences aside
	stopped   atomic.Bool
	onPublish func()

	mu        sync.Mutex
	applied   map[string]mapEntry
	published map[string]mapEntry
	at        Version
	stale     error
	statuses  []error // as they changed
	publishes int
	lists     int  // that were published
	refuse    bool // lists of members without a leader
}

type mapEntry struct {
	value string
	rev   int64
}

func (e mapEntry) String() string { return fmt.Sprintf("%s@%d", e.value, e.rev) }

// enter notes a call that only one goroutine may make at a time.
func (s *mapStore) enter(what string) (leave func()) {
	if s.stopped.Load() {
		s.t.Errorf("%s after stop", what)
	}
	if s.busy.Add(1) > 1 {
		s.t.Errorf("%s while another call is under way", what)
	}
	s.mu.Lock()
	return func() {
		s.mu.Unlock()
		s.busy.Add(-1)
	}
}

func (s *mapStore) setStaleLocked(stale error) {
	if fmt.Sprint(stale) != fmt.Sprint(s.stale) {
		s.statuses = append(s.statuses, stale)
	}
	s.stale = stale
}

func (s *mapStore) NewList() List { return &mapList{s, make(map[string]mapEntry)} }

func (s *mapStore) Apply(events []*clientv3.Event) {
	defer s.enter("Apply")()
	for _, ev := range events {
		if was, key := s.applied[string(ev.Kv.Key)], string(ev.Kv.Key); ev.Type == mvccpb.Event_DELETE {
			delete(s.applied, key)
		} else {
			if was.rev >= ev.Kv.ModRevision {
				s.t.Errorf("%s: event of revision %d after %d", key, ev.Kv.ModRevision, was.rev)
			}
			s.applied[key] = mapEntry{string(ev.Kv.Value), ev.Kv.ModRevision}
		}
	}
}

func (s *mapStore) Publish(revision int64) {
	defer s.enter("Publish")()
	s.published = maps.Clone(s.applied)
	s.at.Revision = revision
	s.publishes++
	s.setStaleLocked(nil)
	if s.onPublish != nil {
		s.onPublish()
	}
}

func (s *mapStore) SetStatus(stale error) {
	defer s.enter("SetStatus")()
	if errors.Is(s.stale, etcdkv.ErrClientClosed) && !errors.Is(stale, etcdkv.ErrClientClosed) {
		s.t.Errorf("status %v after the last one", stale)
	}
	s.setStaleLocked(stale)
}

func (s *mapStore) Size() (keys int, modRevision int64) {
	if s.stopped.Load() {
		s.t.Error("Size after stop")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.published {
		modRevision = max(modRevision, e.rev)
	}
	return len(s.published), modRevision
}

// spoil changes what was published behind the Reflector's back.
func (s *mapStore) spoil(change func(content map[string]mapEntry)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.applied)
	s.published = maps.Clone(s.applied)
}

func (s *mapStore) status() error {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stale
}

type mapList struct {
	store *mapStore
	keys  map[string]mapEntry
}

func (l *mapList) Add(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		l.keys[string(kv.Key)] = mapEntry{string(kv.Value), kv.ModRevision}
	}
}

func (l *mapList) Replace(at Version, stale error) bool {
	defer l.store.enter("Replace")()
	if stale != nil && l.store.refuse {
		return false
	}
	l.store.applied, l.store.published, l.store.at = l.keys, maps.Clone(l.keys), at
	l.store.lists++
	l.store.setStaleLocked(stale)
	return true
}

func (l *mapList) Differences() map[string]Difference {
	if l.store.stopped.Load() {
		l.store.t.Error("Differences after stop")
	}
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	diffs := make(map[string]Difference)
	for key := range l.keys {
		diffs[key] = Difference{Store: "nothing", Etcd: l.keys[key].String()}
	}
	for key, e := range l.store.published {
		if l.keys[key] == e {
			delete(diffs, key)
			continue
		}
		diff := Difference{Store: e.String(), Etcd: "nothing"}
		if other, ok := l.keys[key]; ok {
			diff.Etcd = other.String()
		}
		diffs[key] = diff
	}
	return diffs
}

// env is a Group on a store of its own, in virtual time.
type env struct {
	testing.TB
	store *fakeetcd.Store
	conn  *fakeetcd.Conn
	group *Group
	lines logtest.Buffer
	stops []func()
}

func bubble(t *testing.T, test func(e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t)
		defer e.close()
		test(e)
	})
}

func newEnv(t testing.TB) *env {
	e := &env{TB: t, store: fakeetcd.New()}
	e.conn = e.store.Connect(context.Background())
	e.group = NewGroup(e.conn.Client, e.lines.Logger(slog.LevelInfo), func() string { return "" })
	return e
}

func (e *env) close() {
	for _, stop := range e.stops {
		stop()
	}
	e.store.Close()
}

// follow starts a Reflector that ends with the test.
func (e *env) follow(prefix string, opts Options) (*Reflector, *mapStore) {
	if opts.CheckPeriod == 0 {
		opts.CheckPeriod = backoff.Never
	}
	s := &mapStore{t: e.TB, stale: errStarting, applied: make(map[string]mapEntry)}
	r, stop := e.group.Start(etcdkv.Prefix(prefix), s, opts)
	e.stops = append(e.stops, func() {
		stop()
		s.stopped.Store(true)
	})
	return r, s
}

// differs returns how what is published differs from what etcd has, "" if it does not.
func (e *env) differs(s *mapStore, prefix string) string {
	synctest.Wait()
	want := make(map[string]mapEntry)
	for _, kv := range e.store.KeyValues() {
		if strings.HasPrefix(string(kv.Key), prefix) {
			want[string(kv.Key)] = mapEntry{string(kv.Value), kv.ModRevision}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if maps.Equal(s.published, want) && s.stale == nil {
		return ""
	}
	return fmt.Sprintf("got %v, stale: %v; want %v", s.published, s.stale, want)
}

// same checks that what is published is live, and what etcd has.
func (e *env) same(s *mapStore, prefix string) {
	e.Helper()
	if diff := e.differs(s, prefix); diff != "" {
		e.Error(diff)
	}
}

func (e *env) put(keys ...string) {
	for _, key := range keys {
		e.store.Put(key, "v")
	}
}

// logged returns the lines since the last call.
func (e *env) logged() string {
	synctest.Wait()
	return strings.TrimSpace(e.lines.Take())
}

// sleep is time.Sleep for tests that count in seconds.
func sleep(seconds float64) { time.Sleep(time.Duration(seconds * float64(time.Second))) }
