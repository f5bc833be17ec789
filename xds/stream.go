// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// maxNode is how large a client's node may be, in bytes.
const maxNode = 64 << 10

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
	wakeup    chan turn // capacity 1: a service has changed
	peer      string
	host      string
	since     time.Time
	nonces    uint64

	mu            sync.Mutex // for those that report on the stream
	node          *corev3.Node
	to            audience
	subscriptions map[*kind]*subscription
}

// serve serves a client until it leaves.
func (s *Server) serve(t transport) error {
	st := &stream{server: s, transport: t, wakeup: make(chan turn, 1), since: time.Now(), subscriptions: make(map[*kind]*subscription)}
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
		s.log().Warn("xDS stream was ended", "client", st.name(), "peer", st.peer, "cause", err)
	}
	return err
}

func (s *Server) enter(st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.services == nil:
		return status.Error(codes.Unavailable, errClosed.Error())
	case len(s.streams) >= s.opts.MaxStreams:
		s.stats.Refused++
		return status.Errorf(codes.ResourceExhausted, "there are %d streams already; try another replica", len(s.streams))
	}
	s.streams[st] = true
	s.stats.Streams++
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

// run is the stream's loop. It ends with it, and with the context of the stream what it started.
func (s *stream) run() error {
	ctx := s.transport.Context()
	requests, ended := make(chan *request), make(chan error, 1)
	go func() { ended <- s.receive(requests) }()
	sent := make(chan error, 1)
	sending := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var t turn
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
			if sending {
				return status.Errorf(codes.DeadlineExceeded, "the client has left a response unread for %v", s.server.opts.WriteTimeout)
			}
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
		if sending {
			t.done()
			continue // what comes next waits, and only the latest of it is kept
		}
		resp, wait := s.next()
		if resp != nil {
			sending, wait = true, s.server.opts.WriteTimeout
			go func() {
				defer t.done()
				sent <- s.transport.send(resp)
			}()
		} else {
			t.done()
		}
		if wait > 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
	}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.node != nil && s.node == nil {
		if n := proto.Size(req.node); n > maxNode {
			return status.Errorf(codes.InvalidArgument, "the node has %d bytes; at most %d are allowed", n, maxNode)
		}
		s.node = req.node
		l := req.node.GetLocality()
		s.to = audience{subset: subsetFor(req.node.GetId(), s.host)}
		s.to.locality.Region, s.to.locality.Zone, s.to.locality.Subzone = l.GetRegion(), l.GetZone(), l.GetSubZone()
	}
	sub := s.subscriptions[k]
	if sub == nil {
		sub = &subscription{kind: k}
		s.subscriptions[k] = sub
	}
	if req.nack != "" {
		s.server.count(&s.server.stats.Rejections)
		s.logger().Warn("xDS client has rejected a response", "type", k.name, "version", sub.version, "cause", req.nack)
	}
	var add, remove []string
	if s.transport.incremental() {
		add, remove = sub.incremental(req)
	} else {
		add, remove = sub.stateOfTheWorld(req)
	}
	if slices.Contains(add, "*") || slices.Contains(remove, "*") {
		add, remove = s.expand(k, add), s.expand(k, remove)
		sub.none = len(add) == 0
	}
	for _, name := range remove {
		if i, ok := sub.find(name); ok {
			s.unwatch(sub.watches[i])
			sub.watches = slices.Delete(sub.watches, i, i+1)
		}
	}
	for _, name := range add {
		i, ok := sub.find(name)
		if ok {
			sub.watches[i].asked = true
			continue
		}
		if len(sub.watches) >= s.server.opts.MaxNames {
			return status.Errorf(codes.ResourceExhausted, "the stream asks for more than %d resources of type %s", s.server.opts.MaxNames, k.name)
		}
		has, known := req.versions[name]
		sub.watches = slices.Insert(sub.watches, i, &watch{view: s.watch(k, name), asked: !known, sent: has})
	}
	return nil
}

// expand replaces "*" by the clusters that a client's node names: the list "services" of its
// metadata. Of other types there is nothing for a client that does not know what to ask for.
func (s *stream) expand(k *kind, names []string) []string {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "*" })
	if k != clusters {
		return names
	}
	for _, v := range s.node.GetMetadata().GetFields()["services"].GetListValue().GetValues() {
		if name := v.GetStringValue(); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// watch returns a view, to be ended with unwatch.
func (s *stream) watch(k *kind, name string) *view {
	key := viewKey{kind: k, name: name}
	parsed, err := parseName(k, name)
	if err == nil && parsed.listening != "" {
		if l, err := serverListener(parsed); err == nil {
			return fixedView(key, l)
		}
	}
	if authorize := s.server.opts.Authorize; err == nil && authorize != nil {
		err = authorize(s.transport.Context(), parsed.service)
	}
	var is *service
	if err == nil {
		is, err = s.server.acquire(parsed.service)
	}
	if err != nil {
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

// next returns the next response, or else how long to wait before there may be one, 0 until the
// stream is woken.
func (s *stream) next() (resp *response, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, k := range kinds {
		sub := s.subscriptions[k]
		if sub == nil {
			continue
		}
		resources, has, asked := sub.due(s.transport.incremental())
		if has == nil {
			continue
		}
		if early := sub.nextPush.Sub(now); !asked && early > 0 {
			if wait == 0 || early < wait {
				wait = early
			}
			continue
		}
		if !asked {
			sub.nextPush = now.Add(s.server.opts.PushInterval)
		}
		s.nonces++
		s.server.count(&s.server.stats.Responses)
		sub.sent(strconv.FormatUint(s.nonces, 10), has)
		return &response{k, sub.version, sub.nonce, resources}, 0
	}
	return nil, wait
}

func (s *stream) name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node.GetId()
}

func (s *stream) logger() *slog.Logger {
	return s.server.log().With("client", s.node.GetId(), "peer", s.peer)
}
