// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	maxSessions = 200
	// maxFailures bounds the wrong guesses of a host in failureWindow.
	maxFailures   = 10
	failureWindow = time.Minute
)

var (
	errSessions = errors.New("too many people are logged in; log out elsewhere, or try again later")
	errFailures = errors.New("too many failed log-ins; try again in a minute")
)

// session is somebody who has logged in.
type session struct {
	name  string
	world *world
	own   bool     // the world is the session's own and ends with it
	proof [32]byte // the digest of the token that was given

	idle  *time.Timer
	ended chan struct{} // closed at the end
}

// sessions are those who are logged in, by the digest of their cookie.
type sessions struct {
	idleTimeout time.Duration
	key         []byte // of CSRF tokens

	mu       sync.Mutex
	closed   bool
	of       map[[32]byte]*session
	running  sync.WaitGroup // ends of sessions
	window   time.Time      // of the failures
	failures map[string]int // by host
}

func newSessions(idleTimeout time.Duration) *sessions {
	return &sessions{idleTimeout: idleTimeout, key: randomBytes(), of: make(map[[32]byte]*session), failures: make(map[string]int)}
}

func randomBytes() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return b
}

func newCookieValue() string { return base64.RawURLEncoding.EncodeToString(randomBytes()) }

// add begins a session and returns its cookie's value.
func (s *sessions) add(of *session) (string, error) {
	value := newCookieValue()
	id := sha256.Sum256([]byte(value))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return "", errClosed
	}
	if len(s.of) >= maxSessions {
		return "", errSessions
	}
	of.ended = make(chan struct{})
	of.idle = time.AfterFunc(s.idleTimeout, func() { s.end(id) })
	s.of[id] = of
	return value, nil
}

// get returns the session of a cookie's value; nil: there is none.
func (s *sessions) get(value string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[sha256.Sum256([]byte(value))]
}

// use has the session of a cookie's value begin to be idle anew.
func (s *sessions) use(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.of[sha256.Sum256([]byte(value))]; found != nil {
		found.idle.Reset(s.idleTimeout)
	}
}

// end ends a session, if it has not ended yet.
func (s *sessions) end(id [32]byte) {
	s.mu.Lock()
	ending := s.of[id]
	delete(s.of, id)
	if ending != nil {
		s.running.Add(1)
	}
	s.mu.Unlock()
	if ending != nil {
		defer s.running.Done()
		ending.end()
	}
}

func (s *session) end() {
	s.idle.Stop()
	close(s.ended)
	if s.own {
		s.world.close()
	}
}

// close ends all sessions.
func (s *sessions) close() {
	s.mu.Lock()
	s.closed = true
	var ids [][32]byte
	for id := range s.of {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	for _, id := range ids {
		s.end(id)
	}
	s.running.Wait()
}

// csrf returns the token that forms of a visitor with a cookie have.
func (s *sessions) csrf(cookie string) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(cookie))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// formIsOurs reports whether a form was made for the visitor who sends it.
func (s *sessions) formIsOurs(r *http.Request) bool {
	cookie := cookieOf(r)
	return cookie != "" && subtle.ConstantTimeCompare([]byte(r.PostFormValue("csrf")), []byte(s.csrf(cookie))) == 1
}

// guess counts a guess of a host before it is checked, so that those which are checked at a time
// count too, or returns why the host may not guess now. A guess that was not wrong is taken back.
func (s *sessions) guess(r *http.Request) (takeBack func(), err error) {
	host := hostOf(r.RemoteAddr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.window) > failureWindow {
		s.window = time.Now()
		clear(s.failures)
	}
	if s.failures[host] >= maxFailures {
		return nil, errFailures
	}
	s.failures[host]++
	window := s.window
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.window.Equal(window) {
			s.failures[host]--
		}
	}, nil
}

// hostOf returns what tells a host from others: its address, of IPv6 the network, as a host may
// have all addresses of its own.
func hostOf(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	addr := at.Addr().Unmap()
	if addr.Is6() {
		network, _ := addr.Prefix(64)
		return network.String()
	}
	return addr.String()
}

// cookieName is that of all cookies; over TLS no other host can set it.
func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return "__Host-rollcall"
	}
	return "rollcall-console"
}

// cookieOf returns the value of a visitor's cookie, "" if there is none.
func cookieOf(r *http.Request) string {
	cookie, err := r.Cookie(cookieName(r))
	if err != nil {
		return ""
	}
	return cookie.Value
}

// setCookie sets a visitor's cookie, for this browser session. Over plain HTTP, which is for
// loopback alone, browsers would not send a secure one.
func setCookie(w http.ResponseWriter, r *http.Request, value string) {
	cookie := &http.Cookie{Name: cookieName(r), Value: value, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode}
	if value == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}

// visitorCookie returns the value of the visitor's cookie, and sets one where there is none.
func visitorCookie(w http.ResponseWriter, r *http.Request) string {
	value := cookieOf(r)
	if value == "" {
		value = newCookieValue()
		setCookie(w, r, value)
	}
	return value
}
