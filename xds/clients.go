// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/rollcall-grpc/rollcall"
)

// Stats are the figures of a Server.
type Stats struct {
	Clients  int // streams now
	Services int // followed now

	// Since the Server was made.
	Streams    uint64 // that were served
	Refused    uint64 // streams over Options.MaxStreams
	Rejections uint64 // responses that a client has rejected (NACK)
	Responses  uint64
}

// Client is who is served by a stream.
type Client struct {
	ID        string            `json:"id"` // of its node
	Cluster   string            `json:"cluster,omitempty"`
	UserAgent string            `json:"userAgent,omitempty"`
	Locality  rollcall.Locality `json:"locality"`
	Peer      string            `json:"peer"` // its address
	Since     time.Time         `json:"since"`
	Resources []Subscribed      `json:"resources"`
}

// Subscribed is what a client has asked for of one type, and what became of it.
type Subscribed struct {
	Type     string     `json:"type"` // envoy.config.endpoint.v3.ClusterLoadAssignment, for instance
	Names    []string   `json:"names"`
	Sent     string     `json:"sent,omitempty"`     // version
	Accepted string     `json:"accepted,omitempty"` // version
	Rejected *Rejection `json:"rejected,omitempty"` // the last
	Refused  []Refusal  `json:"refused,omitempty"`  // names that are not served
}

// Refusal is a name that a client is refused: calls to it fail.
type Refusal struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Rejection is a response that a client has rejected (NACK).
type Rejection struct {
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	Message string    `json:"message"` // the client's own
}

// Stats returns the Server's figures.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Clients: len(s.streams), Services: len(s.services),
		Streams: s.served.Load(), Refused: s.refused.Load(), Rejections: s.rejections.Load(), Responses: s.responses.Load()}
}

// Clients returns the clients that are served now, the first to come first.
func (s *Server) Clients() []Client {
	s.mu.Lock()
	streams := slices.Collect(maps.Keys(s.streams))
	s.mu.Unlock()
	clients := make([]Client, len(streams))
	for i, st := range streams {
		clients[i] = st.report()
	}
	slices.SortFunc(clients, func(a, b Client) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Peer, b.Peer)) })
	return clients
}

func (s *stream) report() Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Client{ID: s.node.id, Cluster: s.node.cluster, UserAgent: s.node.userAgent, Locality: s.to.locality, Peer: s.peer, Since: s.since}
	for _, k := range kinds {
		if sub := s.subscriptions[k]; sub != nil {
			is := Subscribed{Type: k.name, Sent: sub.version, Accepted: sub.accepted, Rejected: sub.nack}
			for _, w := range sub.watches {
				is.Names = append(is.Names, w.view.name)
				if why := w.view.refused; why != nil {
					is.Refused = append(is.Refused, Refusal{w.view.name, why.Error()})
				}
			}
			c.Resources = append(c.Resources, is)
		}
	}
	return c
}

// hostOf returns the host of a peer's address, or all of one that has no port.
func hostOf(peer string) string {
	if host, _, err := net.SplitHostPort(peer); err == nil {
		return host
	}
	return peer
}
