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
	wildcard bool       // the client asks for all that its node names
	none     bool       // it waits to be told that there is nothing
	nonce    string     // of the last response; "": there was none
	version  string     // of it
	pending  []pending  // responses that the client has not acknowledged or rejected
	nextPush time.Time  // when a change may be sent again
	accepted string     // the last version that the client has acknowledged
	nack     *Rejection // the last
}

// pending is a response that waits for the client's.
type pending struct {
	nonce, version string
	since          time.Time
}

// maxPending is how many responses a client may leave without one.
const maxPending = 1000

// watch is a resource that a client has asked for.
type watch struct {
	view    *view
	asked   bool   // it is to be sent, although the client may have it
	resumed bool   // the client has had it from another stream
	sent    string // version; "": none
}

// watched is a resource that a client has asked for, with what it is now.
type watched struct {
	watch *watch
	*resource
}

// find returns where the watch of a name is, or would be, and whether there is one.
func (s *subscription) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.watches, name, func(w *watch, name string) int { return strings.Compare(w.view.name, name) })
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

// difference is what a request asks for that is different.
type difference struct {
	add, remove  []string
	acknowledges bool // it accepts or rejects a response
	resumes      bool // the client has had what it adds from another stream
}

// stateOfTheWorld takes in a request that names all resources; all is what "*" stands for. A
// request that acknowledges nothing is answered even if it names what the last one has: the
// client may have forgotten a resource and asked for it again.
func (s *subscription) stateOfTheWorld(req *request, all []string) (d difference) {
	d.acknowledges = s.note(req)
	if s.started && req.nonce != "" && req.nonce != s.nonce {
		return d // it was sent before the last response arrived, which will be answered too
	}
	d.resumes = !s.started && req.version != ""
	names := slices.DeleteFunc(slices.Clone(req.names), func(name string) bool { return name == "*" })
	s.wildcard = s.kind.whole && (len(names) < len(req.names) || len(names) == 0 && (s.wildcard || !s.started))
	s.started = true
	if s.wildcard {
		names = append(names, all...)
	}
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
		if _, ok := s.find(name); !ok {
			d.add = append(d.add, name)
		}
	}
	for _, w := range s.watches {
		if !wanted[w.view.name] {
			d.remove = append(d.remove, w.view.name)
		}
	}
	if !d.acknowledges && len(d.add) == 0 && len(d.remove) == 0 {
		d.add, s.none = names, s.wildcard && len(names) == 0
	}
	return d
}

// incremental takes in a request that names what is different from now on.
func (s *subscription) incremental(req *request, all []string) (d difference) {
	d.acknowledges = s.note(req)
	expand := func(names []string) ([]string, bool) {
		others := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "*" })
		if len(others) == len(names) || !s.kind.whole {
			return others, false
		}
		return append(others, all...), true
	}
	if !s.started && s.kind.whole && len(req.subscribe) == 0 {
		req.subscribe = []string{"*"}
	}
	s.started = true
	var every bool
	d.add, every = expand(req.subscribe)
	s.none = every && len(d.add) == 0
	d.remove, _ = expand(req.unsubscribe)
	return d
}

// asked reports whether the client waits for a response.
func (s *subscription) asked() bool {
	return s.none || slices.ContainsFunc(s.watches, func(w *watch) bool { return w.asked })
}

// maxResponse is how large a response may become before the rest is left to the next, in bytes:
// some clients take no more than 4 MiB.
const maxResponse = 1 << 20

// due returns the resources that are to be sent, nil for nothing. Of kinds of which a response
// has all resources, nothing is sent while one of them is held back.
func (s *subscription) due(incremental bool) (resources []watched) {
	if s.none {
		return []watched{}
	}
	if !slices.ContainsFunc(s.watches, (*watch).due) {
		return nil
	}
	whole, size := s.kind.whole && !incremental, 0
	for _, w := range s.watches {
		r := w.ready()
		switch {
		case whole && r == nil:
			return nil
		case whole, w.differs(r):
			resources = append(resources, watched{w, r})
			size += len(r.body.Value)
		}
		if size > maxResponse && !whole {
			return resources
		}
	}
	return resources
}

// changing reports whether something may be due, without making it: what changes before it may be sent is
// made once, when it is.
func (s *subscription) changing() bool {
	return slices.ContainsFunc(s.watches, func(w *watch) bool { return w.view.outdated() || w.due() })
}

// ready returns what there is to send, or nil. What etcd has had no say in is not sent to a client
// that has something from another stream.
func (w *watch) ready() *resource {
	r := w.view.current()
	if r != nil && w.resumed && r.provisional {
		return nil
	}
	return r
}

// due reports whether there is something that the client has not been sent.
func (w *watch) due() bool { return w.differs(w.ready()) }

func (w *watch) differs(r *resource) bool { return r != nil && (w.asked || r.version != w.sent) }

// sending notes that a response is being sent.
func (s *subscription) sending(nonce string, resources []watched) {
	for _, r := range resources {
		*r.watch = watch{view: r.watch.view, sent: r.version}
	}
	s.nonce, s.version, s.none = nonce, s.hash(), false
	s.pending = append(s.pending, pending{nonce, s.version, time.Now()})
}

// hash returns the version of all that the client has.
func (s *subscription) hash() string {
	if len(s.watches) == 1 {
		return s.watches[0].sent
	}
	var b strings.Builder
	for _, w := range s.watches {
		b.WriteString(w.view.name + "\x00" + w.sent + "\x00")
	}
	return hash([]byte(b.String()))
}
