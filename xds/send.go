// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

// send sends a response and what is due after it, and reports whether any of it was a change.
func (s *stream) send(resp *response) (change bool) {
	for resp != nil {
		if err := s.transport.send(resp); err != nil {
			s.end(err)
			return change
		}
		change = change || !resp.asked
		s.mu.Lock()
		s.sending = false
		resp = s.nextLocked()
		s.mu.Unlock()
	}
	return change
}

// next returns the next response, to be sent by the caller, or nil.
func (s *stream) next() *response {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nextLocked()
}

func (s *stream) nextLocked() *response {
	if s.handling || s.sending {
		return nil // who does looks again afterwards
	}
	wait := backoff.Never
	for _, k := range kinds {
		sub := s.subscriptions[k]
		if sub == nil {
			continue
		}
		asked, now := sub.asked(), time.Now()
		if early := sub.nextPush.Sub(now); !asked && early > 0 {
			if sub.changing() {
				wait = min(wait, early)
			}
			continue
		}
		resources := sub.due(s.transport.incremental())
		if resources == nil {
			continue
		}
		if !asked {
			sub.nextPush = now.Add(s.server.opts.PushInterval)
		}
		s.sending = true
		s.nonces++
		s.server.responses.Add(1)
		sub.sending(strconv.FormatUint(s.nonces, 10), resources)
		s.expectLocked(sub)
		return &response{k, sub.version, sub.nonce, resources, asked}
	}
	switch {
	case wait == backoff.Never:
	case s.later == nil:
		s.later = time.AfterFunc(wait, func() { s.send(s.next()) })
	default:
		s.later.Reset(wait)
	}
	return nil
}

// expectLocked has the client acknowledge a response in time.
func (s *stream) expectLocked(sub *subscription) {
	if len(sub.pending) > maxPending {
		s.end(status.Errorf(codes.ResourceExhausted, "the client has left %d responses unanswered", maxPending))
	}
	if !s.waiting {
		s.waiting = true
		s.deadline.Reset(s.server.opts.WriteTimeout)
	}
}

// patience sets the deadline for the oldest response that is not acknowledged, and returns an error
// if it has passed.
func (s *stream) patience() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := backoff.Never
	for _, sub := range s.subscriptions {
		if len(sub.pending) > 0 {
			wait = min(wait, s.server.opts.WriteTimeout-time.Since(sub.pending[0].since))
		}
	}
	if wait <= 0 {
		return status.Errorf(codes.DeadlineExceeded, "the client has left a response unanswered for %v", s.server.opts.WriteTimeout)
	}
	s.waiting = wait < backoff.Never
	s.deadline.Reset(wait)
	return nil
}
