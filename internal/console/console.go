// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/timeline"
)

// Options are the settings of a Console; the zero value works.
type Options struct {
	Logger *slog.Logger // told who logged in and who changed what; default slog.Default()
	Access Access       // default: everybody who can connect

	// Writes allows to drain, undrain, and set weights and service configs. Default: the page
	// only reads.
	Writes bool

	// CheckConfig returns why gRPC does not accept a service config. Default: any is accepted.
	CheckConfig func(config string) error

	// Clock has noted when etcd told which revision, for the times of a history. Default: no times.
	Clock *timeline.Clock

	// Clients returns the clients of the xDS server beside the page. Default: there is none.
	Clients func() []Client

	// IdleTimeout is how long a session lasts in which no page is loaded. Default 30 min.
	IdleTimeout time.Duration

	// MaxStreams bounds the pages that are open. Default 1,000.
	MaxStreams int
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.CheckConfig == nil {
		o.CheckConfig = func(string) error { return nil }
	}
	if o.Clock == nil {
		o.Clock = new(timeline.Clock)
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = 30 * time.Minute
	}
	if o.MaxStreams == 0 {
		o.MaxStreams = 1000
	}
}

// Console serves the page. Close it after the last request, or to end the streams.
type Console struct {
	opts     Options
	log      *slog.Logger
	world    *world // of all but etcd's users, who have their own
	sessions *sessions
	handler  http.Handler

	requestTimeout, writeTimeout, heartbeat time.Duration

	streams  atomic.Int64
	checking chan struct{} // bounds the passwords that etcd checks at a time
	closing  chan struct{}
	close    func()
}

// New returns a Console over a Directory, which stays the caller's.
func New(directory *rollcall.Directory, opts Options) (*Console, error) {
	if directory == nil {
		return nil, errors.New("console: the Directory is nil")
	}
	if err := opts.Access.validate(); err != nil {
		return nil, err
	}
	opts.setDefaults()
	c := &Console{opts: opts, log: opts.Logger, sessions: newSessions(opts.IdleTimeout),
		requestTimeout: requestTimeout, writeTimeout: writeTimeout, heartbeat: heartbeat, checking: make(chan struct{}, 4), closing: make(chan struct{})}
	if opts.Access.LogIn == nil { // what nobody may see is not followed
		var err error
		if c.world, err = newWorld(directory); err != nil {
			return nil, err
		}
	}
	c.close = sync.OnceFunc(func() {
		close(c.closing)
		c.sessions.close()
		if c.world != nil {
			c.world.close()
		}
	})
	c.handler = c.routes()
	return c, nil
}

// Close ends all streams and sessions, and joins what was started. Calling it again does nothing.
func (c *Console) Close() { c.close() }

func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.handler.ServeHTTP(w, r) }

// requestTimeout bounds the time in which a form is sent and a page is read.
const requestTimeout = 30 * time.Second

const (
	// maxForm bounds what is read of a form; a service config is the largest part.
	maxForm = 2 << 20
	// maxLogIn bounds it of others, which who has not logged in can send too.
	maxLogIn = 8 << 10
)

func formLimit(r *http.Request) int64 {
	if r.URL.Path == "/config" {
		return maxForm
	}
	return maxLogIn
}

// routes returns what is served. GET never writes.
func (c *Console) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", assets())
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) { c.showLogIn(w, r, http.StatusOK, "") })
	mux.HandleFunc("POST /login", c.logIn)
	mux.HandleFunc("POST /logout", c.logOut)
	for _, p := range c.pages() {
		mux.Handle("GET "+p.path, c.forVisitors(func(w http.ResponseWriter, r *http.Request, v *visitor) { c.showPage(w, r, v, p) }))
		mux.Handle("GET "+p.livePath(), c.forVisitors(func(w http.ResponseWriter, r *http.Request, v *visitor) { c.followPage(w, r, v, p) }))
	}
	for path, form := range map[string]form{"/change": c.changeForm(), "/config": c.configForm()} {
		mux.Handle("GET "+path, c.forWriters(form.show))
		mux.Handle("POST "+path, c.forWriters(form.take))
	}
	protected := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w.Header())
		r.Body = http.MaxBytesReader(w, r.Body, formLimit(r))
		out := http.NewResponseController(w)
		_ = out.SetReadDeadline(time.Now().Add(c.requestTimeout)) // a stream has deadlines of its own, once it begins
		_ = out.SetWriteDeadline(time.Now().Add(c.requestTimeout))
		if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
			c.fail(w, r, http.StatusBadRequest, "Not understood", "the address of the page is malformed: "+err.Error())
			return
		}
		protected.ServeHTTP(w, r)
	})
}

// setHeaders sets what holds for all answers: browsers run nothing and load nothing that is not
// the console's own, show it in no frame, and keep nothing.
func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "+
		"form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

type handlerFor func(w http.ResponseWriter, r *http.Request, v *visitor)

// forVisitors has others log in first.
func (c *Console) forVisitors(next handlerFor) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := c.visitor(r)
		if v == nil {
			c.showLogIn(w, r, http.StatusUnauthorized, "")
			return
		}
		next(w, r, v)
	})
}

// forWriters is forVisitors for what changes etcd.
func (c *Console) forWriters(next handlerFor) http.Handler {
	return c.forVisitors(func(w http.ResponseWriter, r *http.Request, v *visitor) {
		switch {
		case !c.opts.Writes:
			c.fail(w, r, http.StatusForbidden, "Not allowed", "this console only reads; start rollcall serve with --console-writes to allow changes")
		case r.Method == http.MethodPost && !c.sessions.formIsOurs(r):
			c.fail(w, r, http.StatusForbidden, "Not done", "the form was not made for this browser, or is out of date; go back, load the page again and repeat it")
		default:
			next(w, r, v)
		}
	})
}

// form is a page that asks before something is changed, and what then changes it.
type form struct {
	show, take handlerFor
}
