// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
)

const (
	silenceBound = 10 * time.Second // a watch stream that says nothing for so long is asked
	connectGrace = time.Second      // how long connecting may last before it counts as down
	verifyEvery  = time.Second      // a suspected history is verified at most so often
	verifyTries  = 10               // so many spans are asked for until one may be read
	doubtEvery   = time.Second      // a connection that feeds doubt is checked at most so often
	replaceEvery = time.Second      // a watch stream is given up at most so often
	rejudgeEvery = 5 * time.Second  // a broken connection is asked so often why it is
)

// link is a Directory's one view of the way to etcd: is the connection up, does the
// watch stream live, is it still the same history. Feeds tell it what they see and
// read its verdict; it runs while there is a feed. While the verdict is down, the link
// alone asks etcd, and feeds wait.
type link struct {
	client *clientv3.Client
	log    *slog.Logger
	wake   chan struct{} // capacity 1: something to look at

	mu       sync.Mutex
	outage   trouble // what was logged: it outlives run
	refusals trouble
	running  int // there is run, and for a moment perhaps two
	verdict  verdict
	changed  chan struct{} // closed and replaced when verdict changes
	back     chan struct{} // closed and replaced when etcd is back, or another history begins
	checked  chan struct{} // closed and replaced when a check has ended
	granted  chan struct{} // closed and replaced when a span may be read that was refused before
	heard    time.Time     // last message on the watch stream
	spoke    bool          // the watch stream has said something since it was opened
	suspect  bool          // the history must be verified
	doubted  bool          // a feed lost its watch, or its list failed
	verified time.Time     // when the history last was
	judged   time.Time     // when a check last ended
	retryAt  time.Time     // when to check again after one that failed
	seenRev  int64         // greatest revision that a member is known to have reached in this history
	seenTerm uint64
	termFell time.Time // since when answers have a lower raft term; zero: they have not
	conn     connectivity.State
	connAt   time.Time        // when conn was entered
	replaced time.Time        // when a watch stream was last given up
	retired  []uint64         // streams given up that have not been ended
	feeds    map[*feed]access // of the feeds that run
}

// access is what is known of the right to read a span.
type access int

const (
	accessUnknown access = iota
	accessGranted
	accessRefused
)

// verdict is what feeds act upon.
type verdict struct {
	stream  uint64     // the watch stream in use; feeds on another open theirs anew
	history int        // feeds of an older history list again
	audit   uint64     // feeds compare themselves with the store when it grows
	down    *Staleness // nil while the way to etcd is good
}

func newLink(client *clientv3.Client, log *slog.Logger) *link {
	return &link{client: client, log: log, wake: make(chan struct{}, 1),
		changed: make(chan struct{}), back: make(chan struct{}), checked: make(chan struct{}), granted: make(chan struct{}),
		feeds: make(map[*feed]access), conn: connectivity.Idle}
}

// streamID makes the metadata, and thereby the stream, of this process's Directory
// its own: clientv3 shares one stream among equal metadata.
var streamID = rand.Text()

// context returns ctx with the metadata of a watch stream: clientv3 keeps a gRPC
// stream for each distinct metadata. A leader is required.
func (l *link) context(ctx context.Context, stream uint64) context.Context {
	id := fmt.Sprintf("%s-%p-%d", streamID, l, stream)
	return clientv3.WithRequireLeader(metadata.AppendToOutgoingContext(ctx, "rollcall-stream", id))
}

// current returns the verdict and a channel that closes when it changes.
func (l *link) current() (verdict, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.verdict, l.changed
}

// recovery returns a channel that closes when waiting longer makes no sense: etcd is
// back, or another history begins.
func (l *link) recovery() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.back
}

func (l *link) changeLocked(change func(v *verdict)) {
	was := l.verdict
	change(&l.verdict)
	renew(&l.changed)
	if was.history != l.verdict.history || was.down != nil && l.verdict.down == nil {
		renew(&l.back)
	}
}

// renew closes a channel and puts another one in its place.
func renew(c *chan struct{}) {
	close(*c)
	*c = make(chan struct{})
}

// reset forgets what nobody has judged since the last feed ended.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.heard, l.termFell = connectivity.Idle, time.Now(), time.Time{}
	l.doubted, l.retryAt = false, time.Time{}
}

// access notes whether a feed's key range may be read: the way is checked with such spans, and a
// right that was granted has others look whether theirs was as well.
func (l *link) access(f *feed, now access) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.feeds[f] == accessRefused && now == accessGranted {
		renew(&l.granted)
	}
	if f.service() {
		l.heedAccessLocked(f, now)
	}
	l.feeds[f] = now
}

// refused returns how many spans may not be read, service configs aside, and what closes when
// one may.
func (l *link) refused() (n int, granted <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f, a := range l.feeds {
		if a == accessRefused && !f.config() {
			n++
		}
	}
	return n, l.granted
}

// forget drops a feed that has ended.
func (l *link) forget(f *feed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.feeds, f)
}

// doubt has the connection checked because a feed lost its watch or its list failed, and
// waits for the verdict. One that is a moment old will do.
func (l *link) doubt(ctx context.Context) {
	l.mu.Lock()
	checked := l.checked
	known := l.running == 0 || l.verdict.down != nil || time.Since(l.judged) < doubtEvery
	l.doubted = l.doubted || !known
	l.mu.Unlock()
	if known {
		return
	}
	notify(l.wake)
	select {
	case <-checked:
	case <-ctx.Done():
	}
}

// hear notes a message of the given watch stream. header is its header, from one
// member and not linearizable: below what was seen it is only a hint.
func (l *link) hear(stream uint64, header *pb.ResponseHeader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stream == l.verdict.stream {
		l.heard, l.spoke = time.Now(), true
	}
	if header.GetClusterId() != 0 && header.GetRevision() > 0 && header.GetRevision() < l.seenRev {
		l.suspectLocked()
	}
}

func (l *link) suspectLocked() {
	l.suspect = true
	notify(l.wake)
}

// sawRevision notes a revision that a member has reached in a history: an event's, or that
// of an answer which is not linearizable.
func (l *link) sawRevision(revision int64, history int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if history == l.verdict.history {
		l.seenRev = max(l.seenRev, revision)
	}
}

// sight is what had been seen when a linearizable question was asked.
type sight struct {
	revision int64
	term     uint64
	history  int
}

// seen returns what a linearizable answer must not fall below. Ask before sending.
func (l *link) seen() sight {
	l.mu.Lock()
	defer l.mu.Unlock()
	return sight{l.seenRev, l.seenTerm, l.verdict.history}
}

// sawAnswer notes a linearizable answer, and what seen said before it was asked for.
// It returns the history that the answer belongs to: a new one if it fell below. An
// answer that was under way when another history began says nothing about that one. A
// lower raft term alone must last: a follower that caught up by a snapshot may have one
// for a moment.
func (l *link) sawAnswer(revision int64, term uint64, before sight) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before.history != l.verdict.history {
		return before.history
	}
	if term >= before.term {
		l.termFell = time.Time{}
	} else {
		l.suspectLocked() // until it has risen, or stayed
		if l.termFell.IsZero() {
			l.termFell = time.Now()
		}
	}
	if revision < before.revision || !l.termFell.IsZero() && time.Since(l.termFell) >= verifyEvery {
		l.log.Warn("etcd lost its history: following the new one",
			"revision", revision, "term", term, "seenRevision", before.revision, "seenTerm", before.term)
		l.seenRev, l.seenTerm, l.termFell = revision, term, time.Time{}
		l.changeLocked(func(v *verdict) { v.history++ })
	}
	l.seenRev, l.seenTerm = max(l.seenRev, revision), max(l.seenTerm, term)
	return l.verdict.history
}

// replace gives up a watch stream, unless somebody did already or another one was
// given up a moment ago.
func (l *link) replace(stream uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); stream == l.verdict.stream && now.Sub(l.replaced) >= replaceEvery {
		l.replaced, l.spoke = now, false
		l.retired = append(l.retired, stream)
		l.changeLocked(func(v *verdict) { v.stream++ })
	}
}
