// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/printable"
)

const (
	// logInTimeout bounds the time that etcd may take to check a password.
	logInTimeout = 10 * time.Second
	// maxUser bounds the name of a user, which is logged.
	maxUser = 256
	// maxNext bounds the address that a log-in leads to, which its form holds.
	maxNext = 2 << 10
)

// Access is who may see the page: one of these, or everybody who can connect.
type Access struct {
	// Token returns the token that is to be shown, as a bearer token or in the log-in form.
	Token func() string

	// Certificates lets in those alone whose client certificate the TLS listener has verified.
	Certificates bool

	// LogIn returns an etcd client of a user whose password etcd has accepted. Each session has
	// its own and sees what its user may read.
	LogIn func(ctx context.Context, user, password string) (*clientv3.Client, error)
}

func (a Access) validate() error {
	n := 0
	for _, given := range []bool{a.Token != nil, a.Certificates, a.LogIn != nil} {
		if given {
			n++
		}
	}
	if n > 1 {
		return errors.New("console: a token, certificates and etcd users exclude each other; choose one")
	}
	return nil
}

// logsIn reports whether there is a log-in form.
func (a Access) logsIn() bool { return a.Token != nil || a.LogIn != nil }

// visitor is who a request comes from.
type visitor struct {
	name  string
	world *world
	ended <-chan struct{} // closed when the session ends; nil: there is none
}

// visitor returns who a request comes from, nil if it must log in first. The session is in use,
// and a wrong token was a guess.
func (c *Console) visitor(r *http.Request) *visitor {
	v := c.known(r)
	if _, ok := bearerToken(r); ok && v == nil && c.opts.Access.Token != nil {
		_, _ = c.sessions.guess(r)
	}
	if v != nil && v.ended != nil {
		c.sessions.use(cookieOf(r))
	}
	return v
}

func bearerToken(r *http.Request) (string, bool) {
	return strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// known is visitor for a request that was let in before: it is neither a use nor a guess.
func (c *Console) known(r *http.Request) *visitor {
	switch a := c.opts.Access; {
	case a.Certificates:
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			return nil
		}
		return &visitor{name: certificateName(r.TLS.VerifiedChains[0][0]), world: c.world}
	case a.logsIn():
		if token, ok := bearerToken(r); ok && a.Token != nil {
			if !c.tokenIsRight(token) {
				return nil
			}
			return &visitor{name: "the bearer of the token", world: c.world}
		}
		s := c.sessions.get(cookieOf(r))
		if s == nil {
			return nil
		}
		if a.Token != nil && s.proof != sha256.Sum256([]byte(a.Token())) { // the token was replaced
			c.sessions.end(sha256.Sum256([]byte(cookieOf(r))))
			return nil
		}
		return &visitor{s.name, s.world, s.ended}
	}
	return &visitor{name: "somebody at this host", world: c.world}
}

func (c *Console) tokenIsRight(token string) bool {
	want := c.opts.Access.Token()
	given, wanted := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(want))
	return want != "" && subtle.ConstantTimeCompare(given[:], wanted[:]) == 1
}

func certificateName(cert *x509.Certificate) string {
	for _, uri := range cert.URIs {
		return uri.String()
	}
	return cmp.Or(strings.Join(cert.EmailAddresses, ","), cert.Subject.CommonName, strings.Join(cert.DNSNames, ","), "a certificate without a name")
}

// logInPage is what the log-in form says.
type logInPage struct {
	Users bool // etcd's, rather than a token
	Error string
	Next  string
}

// showLogIn answers with the log-in form, or with why there is none.
func (c *Console) showLogIn(w http.ResponseWriter, r *http.Request, status int, problem string) {
	if !c.opts.Access.logsIn() {
		c.fail(w, r, http.StatusForbidden, "Not allowed", "a client certificate is needed; install one in the browser that the CA of --console-client-ca has signed")
		return
	}
	if c.opts.Access.Token != nil && status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	next := r.FormValue("next")
	if r.Method == http.MethodGet && r.URL.Path != "/login" {
		next = r.URL.RequestURI()
	}
	c.write(w, r, status, pageData{Title: "Log in", CSRF: c.sessions.csrf(visitorCookie(w, r)),
		Content: logInPage{Users: c.opts.Access.LogIn != nil, Error: problem, Next: localPath(next)}}, "login")
}

// logIn takes a filled in log-in form.
func (c *Console) logIn(w http.ResponseWriter, r *http.Request) {
	if !c.opts.Access.logsIn() {
		http.NotFound(w, r)
		return
	}
	if !c.sessions.formIsOurs(r) {
		c.showLogIn(w, r, http.StatusForbidden, "The form was out of date. Try again.")
		return
	}
	if len(r.PostFormValue("user")) > maxUser {
		c.showLogIn(w, r, http.StatusBadRequest, "The name is too long.")
		return
	}
	takeBack, err := c.sessions.guess(r)
	if err != nil {
		w.Header().Set("Retry-After", "60")
		c.showLogIn(w, r, http.StatusTooManyRequests, err.Error())
		return
	}
	of, err := c.authenticate(r)
	if !wrongGuess(err) {
		takeBack()
	}
	if err != nil {
		c.log.Warn("a log-in to the console failed", "peer", r.RemoteAddr, "user", r.PostFormValue("user"), "cause", printable.Error(err))
		c.showLogIn(w, r, http.StatusUnauthorized, logInProblem(err))
		return
	}
	cookie, err := c.sessions.add(of)
	if err != nil {
		if of.own {
			of.world.close()
		}
		c.showLogIn(w, r, http.StatusServiceUnavailable, err.Error())
		return
	}
	c.log.Info("logged in to the console", "who", of.name, "peer", r.RemoteAddr)
	setCookie(w, r, cookie)
	http.Redirect(w, r, localPath(r.PostFormValue("next")), http.StatusSeeOther)
}

var errWrongToken = errors.New("the token is wrong")

// authenticate returns a session for what was typed in.
func (c *Console) authenticate(r *http.Request) (*session, error) {
	if c.opts.Access.Token != nil {
		token := strings.TrimSpace(r.PostFormValue("token"))
		if !c.tokenIsRight(token) {
			return nil, errWrongToken
		}
		return &session{name: "the bearer of the token", world: c.world, proof: sha256.Sum256([]byte(token))}, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), logInTimeout)
	defer cancel()
	select { // etcd takes a tenth of a second of a processor for each password
	case c.checking <- struct{}{}:
		defer func() { <-c.checking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	user := r.PostFormValue("user")
	client, err := c.opts.Access.LogIn(ctx, user, r.PostFormValue("password"))
	if err != nil {
		return nil, err
	}
	own, err := newUserWorld(client, c.log)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	return &session{name: "etcd user " + user, world: own, own: true}, nil
}

// wrongGuess reports whether a log-in failed for what was typed in.
func wrongGuess(err error) bool {
	return errors.Is(err, errWrongToken) || errors.Is(err, rpctypes.ErrAuthFailed) || errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrUserNotFound)
}

func logInProblem(err error) string {
	switch {
	case errors.Is(err, errWrongToken):
		return "The token is wrong."
	case errors.Is(err, rpctypes.ErrAuthNotEnabled):
		return "etcd has no users: authentication is not enabled there."
	case wrongGuess(err):
		return "The name or the password is wrong."
	}
	return "etcd did not let you in: " + printable.Error(err)
}

func (c *Console) logOut(w http.ResponseWriter, r *http.Request) {
	if !c.sessions.formIsOurs(r) {
		c.fail(w, r, http.StatusForbidden, "Not done", "the form was out of date; go back and load the page again")
		return
	}
	c.sessions.end(sha256.Sum256([]byte(cookieOf(r))))
	setCookie(w, r, "")
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// localPath returns a path of this server, "/" for anything else. Browsers take tabs and line
// ends out of an address, which url.Parse refuses, and read a backslash as a slash.
func localPath(next string) string {
	_, err := url.Parse(next)
	if err != nil || len(next) > maxNext || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.Contains(next, `\`) || strings.HasPrefix(next, "/live/") {
		return "/"
	}
	return next
}
