// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"io"
	"slices"
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

// stream serves one client. A goroutine receives its requests, the service's pushes send it changes,
// and gRPC's own goroutine waits for neither, so that it can end the stream of a client that does not
// read.
type stream struct {
	server    *Server
	transport transport
	ctx       context.Context // of what requests cause; ends before the transport's
	peer      string
	host      string
	since     time.Time
	ended     chan error     // capacity 1: why the stream is to end
	deadline  *time.Timer    // for a response to be acknowledged
	refused   bool           // a name was; owned by receive
	requests  sync.WaitGroup // 1 while one is handled

	mu       sync.Mutex
	handling bool // a request: nothing is sent until all that it asks for is known
	sending  bool // a response: who sends it looks for the next one
	waiting  bool // the deadline is set
	nonces   uint64
	later    *time.Timer // nil, or until a change may be sent that has come within PushInterval

	// Changed with mu held: while handling by receive, else by who sends.
	node          node
	to            audience
	subscriptions map[*kind]*subscription
}

// serve serves a client until it leaves.
func (s *Server) serve(t transport) error {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	st := &stream{server: s, transport: t, ctx: ctx, since: time.Now(), ended: make(chan error, 1), deadline: time.NewTimer(backoff.Never), subscriptions: make(map[*kind]*subscription)}
	defer st.deadline.Stop()
	if p, ok := peer.FromContext(t.Context()); ok {
		st.peer = p.Addr.String()
		st.host = hostOf(st.peer)
	}
	if err := s.enter(st); err != nil {
		return err
	}
	defer s.leave(st)
	go st.receive()
	err := st.wait()
	cancel()
	st.forget()
	if code := status.Code(err); code != codes.OK && code != codes.Canceled && err != errStreamClosed {
		s.log().Warn("xDS stream was ended", "client", st.report().ID, "peer", st.peer, "cause", err)
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
	defer s.mu.Unlock()
	delete(s.streams, st)
}

// wait returns why the stream is to end. A request that is being received and a response that is being
// sent then are given up with the stream's context.
func (s *stream) wait() error {
	ctx := s.transport.Context()
	for {
		select {
		case err := <-s.ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-s.deadline.C:
			if err := s.patience(); err != nil {
				return err
			}
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-s.server.closing:
			return errStreamClosed
		}
	}
}

// end has the stream end with an error.
func (s *stream) end(err error) {
	select {
	case s.ended <- err:
	default: // there is a reason already
	}
}

// receive takes in requests until the stream ends. What they ask for is sent by others, so that a
// client which does not read is still heard.
func (s *stream) receive() {
	for {
		req, err := s.transport.receive()
		if err == nil {
			err = s.handle(req)
		}
		if err != nil {
			s.end(err)
			return
		}
		if resp := s.next(); resp != nil {
			go s.send(resp)
		}
	}
}

// forget releases what the client has asked for, once a request that is being handled has been.
func (s *stream) forget() {
	s.mu.Lock()
	subscriptions := s.subscriptions
	s.subscriptions = nil
	if s.later != nil {
		s.later.Stop()
	}
	s.mu.Unlock()
	s.requests.Wait()
	for _, sub := range subscriptions {
		for _, w := range sub.watches {
			s.unwatch(w)
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
	if sub == nil {
		return errStreamClosed
	}
	defer s.requests.Done()
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
	s.mu.Lock()
	s.handling = false
	s.mu.Unlock()
	return nil
}

// compare returns what a request asks for that is different from what was asked for before, and nothing
// once the stream has ended.
func (s *stream) compare(k *kind, req *request) (*subscription, difference) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subscriptions == nil {
		return nil, difference{}
	}
	s.requests.Add(1)
	s.handling = true
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
		err = authorize(s.ctx, parsed.service)
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
