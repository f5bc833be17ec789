// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"strings"
	"time"
)

// subscription is what a stream has asked for and been sent of one kind.
type subscription struct {
	kind     *kind
	watches  []*watch   // sorted by name
	started  bool       // there was a request
	wildcard bool       // it asked for "*", and none since has named any
	none     bool       // the client waits to be told that there is nothing
	nonce    string     // of the last response; "": there was none
	version  string     // of it
	pending  []pending  // responses that the client has not acknowledged or rejected
	resume   string     // the version that a client which was here before has; "": none
	nextPush time.Time  // when a change may be sent again
	accepted string     // the last version that the client has acknowledged
	nack     *Rejection // the last
}

type pending struct{ nonce, version string }

// maxPending is how many responses are remembered that a client does not answer.
const maxPending = 16

// watch is a resource that a client has asked for.
type watch struct {
	view  *view
	asked bool   // it is to be sent, although the client may have it
	sent  string // version; "": none
}

// find returns where the watch of a name is, or would be, and whether there is one.
func (s *subscription) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.watches, name, func(w *watch, name string) int { return strings.Compare(w.view.name, name) })
}

// watched is a resource that a client has asked for, with what it is now.
type watched struct {
	watch *watch
	*resource
}

// note notes which response a client accepts or rejects, and reports whether it does.
func (s *subscription) note(req *request) bool {
	i := slices.IndexFunc(s.pending, func(p pending) bool { return p.nonce == req.nonce })
	if i < 0 {
		return false
	}
	version := s.pending[i].version
	if s.pending = s.pending[i+1:]; req.nack == "" {
		s.accepted = version
	} else {
		s.nack = &Rejection{Version: version, Time: time.Now(), Message: req.nack}
	}
	return true
}

// stateOfTheWorld takes in a request that names all resources, and returns those to be sent, or
// sent again, and those to be left out from now on. A request that acknowledges nothing is
// answered even if it names what the last one has: the client may have forgotten a resource and
// asked for it again.
func (s *subscription) stateOfTheWorld(req *request) (add, remove []string) {
	acknowledges := s.note(req)
	if req.nonce != "" && req.nonce != s.nonce {
		return nil, nil // it was sent before the last response arrived, which will be answered too
	}
	names := req.names
	if !s.started {
		s.resume = req.version
	}
	if s.wildcard = len(names) == 0 && s.kind.whole && (!s.started || s.wildcard); s.wildcard {
		names = []string{"*"}
	}
	s.started = true
	if s.wildcard && acknowledges {
		return nil, nil
	}
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
		if _, ok := s.find(name); !ok {
			add = append(add, name)
		}
	}
	for _, w := range s.watches {
		if !wanted[w.view.name] {
			remove = append(remove, w.view.name)
		}
	}
	if !acknowledges && len(add) == 0 && len(remove) == 0 {
		add = names
	}
	return add, remove
}

// incremental takes in a request that names what is different from now on.
func (s *subscription) incremental(req *request) (add, remove []string) {
	add = req.subscribe
	if !s.started && s.kind.whole && len(add) == 0 {
		add = []string{"*"}
	}
	s.started = true
	s.note(req)
	return add, req.unsubscribe
}

// due returns the resources that are to be sent, with those that the client has after that, or
// nil for none, and whether the client waits for one of them.
func (s *subscription) due(incremental bool) (resources, has []watched, asked bool) {
	if !slices.ContainsFunc(s.watches, (*watch).due) {
		return nil, nil, false
	}
	for _, w := range s.watches {
		r := w.view.current()
		if r == nil {
			if s.resume != "" {
				return nil, nil, false // to be compared with what the client has
			}
			continue
		}
		has = append(has, watched{w, r})
		if w.asked || r.version != w.sent {
			resources, asked = append(resources, watched{w, r}), asked || w.asked
		}
	}
	switch {
	case len(resources) == 0: // what was due has changed back
		return nil, nil, false
	case incremental:
		return resources, has, asked
	case s.kind.whole:
		return has, has, asked
	case s.resume != "" && s.resume == versionOf(has):
		return nil, has, asked // the client has them
	}
	return resources, has, asked
}

// due reports whether there is a resource that the client has not been sent.
func (w *watch) due() bool {
	r := w.view.current()
	return r != nil && (w.asked || r.version != w.sent)
}

// sent notes that a response is being sent, after which the client has some resources.
func (s *subscription) sent(nonce string, has []watched) {
	for _, r := range has {
		r.watch.sent, r.watch.asked = r.version, false
	}
	s.nonce, s.version, s.resume, s.none = nonce, versionOf(has), "", false
	if s.pending = append(s.pending, pending{nonce, s.version}); len(s.pending) > maxPending {
		s.pending = s.pending[1:]
	}
}

// versionOf returns the version of some resources, sorted by name: the same on every replica.
func versionOf(resources []watched) string {
	if len(resources) == 1 {
		return resources[0].version
	}
	var b strings.Builder
	for _, r := range resources {
		b.WriteString(r.watch.view.name + "\x00" + r.version + "\x00")
	}
	return hash([]byte(b.String()))
}
