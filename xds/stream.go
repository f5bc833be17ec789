// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

// maxName is how long the name of a resource may be, in bytes.
const maxName = 4 << 10

// node is who a client says that it is.
type node struct {
	id, cluster, userAgent string
	services               []string // that "*" stands for: the list "services" of its metadata
}

// request is what a client asks for, in either variant of the protocol.
type request struct {
	typeURL string
	nonce   string // of the response that it is about; "": of none
	node    *corev3.Node
	nack    string // why the client has rejected that response; "": it has not

	// Of the state of the world: the resources wanted from now on, and the version that the
	// client has.
	names   []string
	version string

	// Of the incremental variant.
	subscribe, unsubscribe []string
	versions               map[string]string // of resources that the client has, by name
}

// response is a response of either variant.
type response struct {
	kind      *kind
	version   string // of all resources of the kind that the client has now
	nonce     string
	resources []watched
	asked     bool // the client has waited for it
}

// transport is a stream of either variant.
type transport interface {
	Context() context.Context
	receive() (*request, error)
	send(*response) error
	incremental() bool
}

// stream serves one client. What the client has asked for and been sent is changed by run alone.
type stream struct {
	server    *Server
	transport transport
	wakeup    chan *turn // capacity 1: a service has changed
	peer      string
	host      string
	since     time.Time
	nonces    uint64
	refused   bool // a name was

	mu            sync.Mutex // for those that report on the stream
	node          node
	to            audience
	subscriptions map[*kind]*subscription
}

// serve serves a client until it leaves.
func (s *Server) serve(t transport) error {
	st := &stream{server: s, transport: t, wakeup: make(chan *turn, 1), since: time.Now(), subscriptions: make(map[*kind]*subscription)}
	if p, ok := peer.FromContext(t.Context()); ok {
		st.peer = p.Addr.String()
		st.host = hostOf(st.peer)
	}
	if err := s.enter(st); err != nil {
		return err
	}
	defer s.leave(st)
	err := st.run()
	if code := status.Code(err); code != codes.OK && code != codes.Canceled && err != errStreamClosed {
		s.log().Warn("xDS stream was ended", "client", st.node.id, "peer", st.peer, "cause", err)
	}
	return err
}

func (s *Server) enter(st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.services == nil:
		return errStreamClosed
	case len(s.streams) >= s.opts.MaxStreams:
		s.refused.Add(1)
		return status.Errorf(codes.ResourceExhausted, "there are %d streams already; try another replica", len(s.streams))
	}
	s.streams[st] = true
	s.served.Add(1)
	return nil
}

func (s *Server) leave(st *stream) {
	s.mu.Lock()
	delete(s.streams, st)
	s.mu.Unlock()
	for _, sub := range st.subscriptions {
		for _, w := range sub.watches {
			st.unwatch(w)
		}
	}
	st.wakeNoMore()
}

// run is the stream's loop. A request that is being received and a response that is being sent when
// it ends are given up with the stream's context.
func (s *stream) run() error {
	ctx := s.transport.Context()
	requests, ended := make(chan *request), make(chan error, 1)
	go func() { ended <- s.receive(requests) }()
	sent := make(chan error, 1)
	sending := false
	timer := time.NewTimer(backoff.Never)
	defer timer.Stop()
	for {
		var t *turn
		select {
		case req := <-requests:
			if err := s.handle(req); err != nil {
				return err
			}
		case t = <-s.wakeup:
		case err := <-sent:
			if sending = false; err != nil {
				return err
			}
		case <-timer.C:
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-s.server.closing:
			return errStreamClosed
		}
		wait, err := s.patience()
		if err != nil {
			t.done(false)
			return err
		}
		if !sending { // else what comes next waits, and only the latest of it is kept
			resp, early := s.next()
			if wait = min(wait, early); resp != nil {
				sending, wait = true, min(wait, s.server.opts.WriteTimeout)
				go func(t *turn) {
					defer t.done(!resp.asked)
					sent <- s.transport.send(resp)
				}(t)
				t = nil
			}
		}
		t.done(false)
		timer.Reset(wait)
	}
}

// patience returns for how long the client may go on without acknowledging a response, or why
// it may not.
func (s *stream) patience() (time.Duration, error) {
	wait := backoff.Never
	for _, sub := range s.subscriptions {
		if len(sub.pending) > maxPending {
			return 0, status.Errorf(codes.ResourceExhausted, "the client has left %d responses unanswered", maxPending)
		}
		if len(sub.pending) > 0 {
			wait = min(wait, s.server.opts.WriteTimeout-time.Since(sub.pending[0].since))
		}
	}
	if wait <= 0 {
		return 0, status.Errorf(codes.DeadlineExceeded, "the client has left a response unanswered for %v", s.server.opts.WriteTimeout)
	}
	return wait, nil
}

// receive hands on requests until the stream ends, and returns why it did.
func (s *stream) receive(requests chan<- *request) error {
	for {
		req, err := s.transport.receive()
		if err != nil {
			return err
		}
		select {
		case requests <- req:
		case <-s.transport.Context().Done():
			return status.FromContextError(s.transport.Context().Err()).Err()
		}
	}
}

// handle takes in a request.
func (s *stream) handle(req *request) error {
	k := kindOf(req.typeURL)
	if k == nil {
		return status.Errorf(codes.InvalidArgument, "resources of type %q are not served", req.typeURL)
	}
	sub, d := s.compare(k, req)
	if req.nack != "" && d.acknowledges {
		s.server.rejections.Add(1)
		s.server.log().Warn("xDS client has rejected a response", "client", s.node.id, "peer", s.peer, "type", k.name, "version", sub.nack.Version, "cause", req.nack)
	}
	for _, name := range d.remove {
		if i, ok := sub.find(name); ok {
			s.unwatch(sub.watches[i])
			s.mu.Lock()
			sub.watches = slices.Delete(sub.watches, i, i+1)
			s.mu.Unlock()
		}
	}
	for _, name := range d.add {
		i, ok := sub.find(name)
		if ok {
			sub.watches[i].asked = true
			continue
		}
		if len(sub.watches) >= s.server.opts.MaxNames {
			return status.Errorf(codes.ResourceExhausted, "the stream asks for more than %d resources of type %s", s.server.opts.MaxNames, k.name)
		}
		if len(name) > maxName {
			return status.Errorf(codes.InvalidArgument, "the name of a resource has %d bytes; at most %d are allowed", len(name), maxName)
		}
		has, known := req.versions[name]
		w := &watch{view: s.watch(k, name), asked: !known, resumed: known || d.resumes, sent: has}
		s.mu.Lock()
		sub.watches = slices.Insert(sub.watches, i, w)
		s.mu.Unlock()
	}
	return nil
}

// compare returns what a request asks for that is different from what was asked for before.
func (s *stream) compare(k *kind, req *request) (*subscription, difference) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := req.node; n != nil && s.node.id == "" {
		s.node = node{id: n.GetId(), cluster: n.GetCluster(), userAgent: strings.TrimSpace(n.GetUserAgentName() + " " + n.GetUserAgentVersion())}
		for _, v := range n.GetMetadata().GetFields()["services"].GetListValue().GetValues() {
			if name := v.GetStringValue(); name != "" {
				s.node.services = append(s.node.services, name)
			}
		}
		l := n.GetLocality()
		s.to = audience{rollcall.Locality{Region: l.GetRegion(), Zone: l.GetZone(), Subzone: l.GetSubZone()}, subsetFor(n.GetId(), s.host)}
	}
	sub := s.subscriptions[k]
	if sub == nil {
		sub = &subscription{kind: k}
		s.subscriptions[k] = sub
	}
	var all []string // Envoy asks for all Clusters; of other kinds there is nothing for who does not know what to ask for
	if k == clusters {
		all = s.node.services
	}
	if s.transport.incremental() {
		return sub, sub.incremental(req, all)
	}
	return sub, sub.stateOfTheWorld(req, all)
}

// watch returns a view, to be ended with unwatch.
func (s *stream) watch(k *kind, name string) *view {
	key := viewKey{kind: k, name: name}
	parsed, err := parseName(k, name)
	if err == nil && parsed.listening != "" {
		return listenerView(key, parsed)
	}
	if authorize := s.server.opts.Authorize; err == nil && authorize != nil {
		err = authorize(s.transport.Context(), parsed.service)
	}
	var is *service
	if err == nil {
		is, err = s.server.acquire(parsed.service)
	}
	if err != nil {
		if !s.refused { // once: a client may make up names
			s.refused = true
			s.server.log().Warn("xDS client asks for what it is refused", "client", s.node.id, "peer", s.peer, "name", name, "cause", err)
		}
		return refusedView(key, parsed, err)
	}
	if k == assignments {
		key.to = s.to
	}
	return is.view(key, parsed, s)
}

func (s *stream) unwatch(w *watch) {
	if is := w.view.service; is != nil {
		is.release(w.view, s)
		s.server.release(is)
	}
}

// next returns the next response, if any, and how long to wait before there may be another.
func (s *stream) next() (resp *response, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	wait = backoff.Never
	for _, k := range kinds {
		sub := s.subscriptions[k]
		if sub == nil {
			continue
		}
		asked := sub.asked()
		if early := sub.nextPush.Sub(now); !asked && early > 0 {
			wait = min(wait, early)
			continue
		}
		resources := sub.due(s.transport.incremental())
		if resources == nil {
			continue
		}
		if !asked {
			sub.nextPush = now.Add(s.server.opts.PushInterval)
		}
		s.nonces++
		s.server.responses.Add(1)
		sub.sending(strconv.FormatUint(s.nonces, 10), resources)
		return &response{k, sub.version, sub.nonce, resources, asked}, wait
	}
	return nil, wait
}
