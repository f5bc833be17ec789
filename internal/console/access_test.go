// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// TestToken: the token lets in as a bearer token and by the form; a new one ends the sessions.
func TestToken(t *testing.T) {
	var token atomic.Value
	token.Store("the token of this test")
	b := newBench(t, Options{Access: Access{Token: func() string { return token.Load().(string) }}})
	b.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	for _, path := range []string{"/", "/service?name=shop", "/live/?since=0", "/cluster", "/history?name=shop", "/live/service?name=shop"} {
		if a := b.get(path); a.status != http.StatusUnauthorized || strings.Contains(a.body, "10.0.0.1") {
			t.Errorf("%s without a token: %d", path, a.status)
		}
	}
	bearer := func(value string) int {
		r := b.request(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+value)
		return b.do(r).status
	}
	if got := bearer("the token of this test"); got != http.StatusOK {
		t.Errorf("the token as a bearer token: %d", got)
	}
	if got := bearer("another"); got != http.StatusUnauthorized {
		t.Errorf("another bearer token: %d", got)
	}
	if a := b.submit("/login", "/login", url.Values{"token": {"another"}}); a.status != http.StatusUnauthorized {
		t.Errorf("another token in the form: %d", a.status)
	} else {
		wantIn(t, a.body, "The token is wrong")
	}
	if a := b.do(b.request(http.MethodPost, "/login", url.Values{"token": {"the token of this test"}})); a.status != http.StatusForbidden {
		t.Errorf("a log-in from elsewhere: %d", a.status)
	}
	a := b.submit("/service?name=shop", "/login", url.Values{"token": {"the token of this test"}, "next": {"/\t/evil.example/"}})
	if a.status != http.StatusSeeOther || a.header.Get("Location") != "/" {
		t.Fatalf("logged in with %d to %q", a.status, a.header.Get("Location"))
	}
	wantIn(t, a.header.Get("Set-Cookie"), "HttpOnly", "SameSite=Strict")
	wantIn(t, b.get("/").body, "Logged in as the bearer of the token")
	page := b.open("/")
	token.Store("the next token of this test")
	if got := b.get("/").status; got != http.StatusUnauthorized {
		t.Errorf("a session of the old token: %d", got)
	}
	page.wait(t, "event: end")
	wantNotIn(t, b.log.String(), "token of this test")
}

// TestStreamsOfAnOldToken: a new token ends what the old one has opened, though nothing else asks.
func TestStreamsOfAnOldToken(t *testing.T) {
	var token atomic.Value
	token.Store("old")
	b := newBench(t, Options{Access: Access{Token: func() string { return token.Load().(string) }}})
	b.console.heartbeat = 20 * time.Millisecond
	if a := b.submit("/login", "/login", url.Values{"token": {"old"}}); a.status != http.StatusSeeOther {
		t.Fatalf("log-in: %d", a.status)
	}
	ofSession := b.open("/")
	b.browser = b.newBrowser()
	r := b.request(http.MethodGet, "/live/", nil)
	r.Header.Set("Authorization", "Bearer old")
	ofBearer, err := b.browser.Do(r)
	if err != nil || ofBearer.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", err, ofBearer)
	}
	defer ofBearer.Body.Close()
	token.Store("new")
	ofSession.wait(t, "event: end")
	sent, err := io.ReadAll(ofBearer.Body)
	if err != nil {
		t.Fatal(err)
	}
	wantIn(t, string(sent), "event: end")
}

// TestLocalPath: a log-in leads nowhere but to a page of this server.
func TestLocalPath(t *testing.T) {
	for next, want := range map[string]string{
		"/service?name=shop&q=a%09b": "/service?name=shop&q=a%09b", "": "/", "service": "/", "https://evil.example/": "/", "//evil.example/": "/",
		"/\t/evil.example/": "/", "\t//evil.example/": "/", "/\r/evil.example/": "/", "/\n/evil.example/": "/", "/\x7f": "/", `/\evil.example/`: "/",
		"///evil.example/": "/", "/live/": "/", "/" + strings.Repeat("x", maxNext): "/",
	} {
		if got := localPath(next); got != want {
			t.Errorf("%q leads to %q, want %q", next, got, want)
		}
	}
}

// TestLogOutAndIdle: a session ends when its user says so, or does nothing; its pages end too.
func TestLogOutAndIdle(t *testing.T) {
	b := newBench(t, Options{Access: Access{Token: func() string { return "secret" }}})
	b.console.heartbeat = 10 * time.Millisecond
	logIn := func() {
		t.Helper()
		if a := b.submit("/login", "/login", url.Values{"token": {"secret"}}); a.status != http.StatusSeeOther {
			t.Fatalf("log-in: %d", a.status)
		}
	}
	logIn()
	page := b.open("/")
	if a := b.do(b.request(http.MethodPost, "/logout", nil)); a.status != http.StatusForbidden {
		t.Errorf("a log-out from elsewhere: %d", a.status)
	}
	if a := b.submit("/", "/logout", nil); a.status != http.StatusSeeOther {
		t.Errorf("log-out: %d", a.status)
	}
	page.wait(t, "event: end")
	if got := b.get("/").status; got != http.StatusUnauthorized {
		t.Errorf("after the log-out: %d", got)
	}
	logIn()
	page = b.open("/")
	b.console.sessions.mu.Lock()
	for _, s := range b.console.sessions.of {
		s.idle.Reset(200 * time.Millisecond) // of the idle time; an open page is not something that is done
	}
	b.console.sessions.mu.Unlock()
	page.wait(t, "event: end")
	if got := b.get("/").status; got != http.StatusUnauthorized {
		t.Errorf("after the idle time: %d", got)
	}
}

// TestFailedLogIns: a host may guess a few times a minute. Who has the token need not guess.
func TestFailedLogIns(t *testing.T) {
	b := newBench(t, Options{Access: Access{Token: func() string { return "secret" }}})
	logIn := func(token string, want int) answer {
		t.Helper()
		b.browser = b.newBrowser()
		a := b.submit("/login", "/login", url.Values{"token": {token}})
		if a.status != want {
			t.Fatalf("log-in with %q: %d, want %d", token, a.status, want)
		}
		return a
	}
	for range maxFailures + 1 {
		logIn("secret", http.StatusSeeOther)
	}
	for range maxFailures {
		logIn("guess", http.StatusUnauthorized)
	}
	if a := logIn("secret", http.StatusTooManyRequests); a.header.Get("Retry-After") == "" {
		t.Error("it is not said when to try again")
	}
	r := b.request(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer secret")
	if got := b.do(r).status; got != http.StatusOK {
		t.Errorf("as a bearer token: %d", got)
	}
}

// TestGuessesAtATime: guesses that are checked at a time count too; that etcd does not answer is
// no guess.
func TestGuessesAtATime(t *testing.T) {
	var checked atomic.Int64
	b := newBench(t, Options{Access: Access{LogIn: func(_ context.Context, user, _ string) (*clientv3.Client, error) {
		if user == "unlucky" {
			return nil, rollcall.ErrNoAnswer
		}
		checked.Add(1)
		time.Sleep(20 * time.Millisecond)
		return nil, rpctypes.ErrAuthFailed
	}}})
	for range maxFailures + 1 {
		if a := b.submit("/login", "/login", url.Values{"user": {"unlucky"}, "password": {"x"}}); a.status != http.StatusUnauthorized {
			t.Fatalf("without an answer of etcd: %d", a.status)
		}
	}
	if a := b.submit("/login", "/login", url.Values{"user": {strings.Repeat("u", maxUser+1)}}); a.status != http.StatusBadRequest {
		t.Errorf("a long name: %d", a.status)
	}
	if a := b.submit("/login", "/login", url.Values{"user": {"root"}, "password": {strings.Repeat("p", maxLogIn)}}); a.status != http.StatusForbidden {
		t.Errorf("a form that is too large: %d", a.status)
	}
	wantNotIn(t, b.log.String(), "uuu", "ppp")
	csrf := csrfField.FindStringSubmatch(b.get("/login").body)[1]
	var guessing sync.WaitGroup
	for range 5 * maxFailures {
		guessing.Go(func() {
			resp, err := b.browser.Do(b.request(http.MethodPost, "/login", url.Values{"csrf": {csrf}, "user": {"root"}, "password": {"guess"}}))
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
		})
	}
	guessing.Wait()
	if got := checked.Load(); got != maxFailures {
		t.Errorf("%d guesses were checked, want %d", got, maxFailures)
	}
}

// TestHostOf: a host is an address, of IPv6 a network.
func TestHostOf(t *testing.T) {
	for remote, want := range map[string]string{"10.0.0.1:80": "10.0.0.1", "[::ffff:10.0.0.1]:80": "10.0.0.1", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80": "fe80::/64", "pipe": "pipe"} {
		if got := hostOf(remote); got != want {
			t.Errorf("%s is %q, want %q", remote, got, want)
		}
	}
}

// TestCertificates: over TLS with a client CA, a certificate is who one is.
func TestCertificates(t *testing.T) {
	ca := etcdtest.NewCA(t)
	cert := ca.Issue("alice", time.Hour)
	etcd := etcdtest.New(t, etcdtest.Options{})
	b := newBenchOn(t, etcd, Options{Access: Access{Certificates: true}, Writes: true}, func(s *httptest.Server) {
		config := ca.ClientConfig(ca.Issue("server", time.Hour))
		s.TLS = &tls.Config{Certificates: config.Certificates, ClientCAs: config.RootCAs, ClientAuth: tls.VerifyClientCertIfGiven}
		if len(s.TLS.Certificates) == 0 {
			s.TLS.Certificates = nil
		}
		s.EnableHTTP2 = true
		s.StartTLS()
	})
	b.put("shop/a", `{"Addr":"10.0.0.1:1"}`)
	transport := b.browser.Transport.(*http.Transport)
	transport.TLSClientConfig.InsecureSkipVerify = true // the server's certificate is not what is tested
	if got := b.get("/").status; got != http.StatusForbidden {
		t.Errorf("without a certificate: %d", got)
	}
	transport.CloseIdleConnections()
	pair, err := tls.LoadX509KeyPair(cert.CertFile, cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	transport.TLSClientConfig.Certificates = []tls.Certificate{pair}
	page := b.open("/service?name=shop")
	const change = "/change?service=shop&id=a&do=drain"
	a := b.submit(change, change, url.Values{"last": {"yes"}})
	if a.status != http.StatusSeeOther {
		t.Fatalf("drained with %d: %s", a.status, a.body)
	}
	page.wait(t, "is draining")
	wantIn(t, b.log.String(), "who=alice", "change=drain", "service=shop", "id=a", "revision=")
	ask := b.get(change)
	wantIn(t, ask.body, "Drain it")
	for _, cookie := range b.browser.Jar.Cookies(b.request("GET", "/", nil).URL) {
		if !strings.HasPrefix(cookie.Name, "__Host-") {
			t.Errorf("cookie %s over TLS", cookie.Name)
		}
	}
}

// TestEtcdUsers: each sees and changes what etcd lets him, and the page names what it refuses.
func TestEtcdUsers(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := etcd.Client(t)
	for key, value := range map[string]string{"shop/a": `{"Addr":"10.0.0.1:1"}`, "pay/a": `{"Addr":"10.0.0.2:1"}`} {
		if _, err := client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	auth := etcd.EnableAuth(t)
	auth.AddUser("reader", "r", etcdtest.Read("shop/"), etcdtest.Read("_grpc_config/shop"))
	clients := func() []Client {
		return []Client{{ID: "of-shop", Services: []string{"shop"}, State: "accepted"}, {ID: "of-pay", Services: []string{"pay"}, State: "accepted"}}
	}
	b := newBenchOn(t, etcd, Options{Writes: true, Clients: clients, Access: Access{LogIn: func(ctx context.Context, user, password string) (*clientv3.Client, error) {
		config := clientv3.Config{Endpoints: etcd.Endpoints(), Username: user, Password: password, DialTimeout: 5 * time.Second}
		return clientv3.New(config)
	}}}, nil)
	if a := b.submit("/login", "/login", url.Values{"user": {"reader"}, "password": {"wrong"}}); a.status != http.StatusUnauthorized {
		t.Errorf("a wrong password: %d", a.status)
	} else {
		wantIn(t, a.body, "The name or the password is wrong")
	}
	logIn := func(user, password string) {
		t.Helper()
		b.browser = b.newBrowser()
		if a := b.submit("/login", "/login", url.Values{"user": {user}, "password": {password}}); a.status != http.StatusSeeOther {
			t.Fatalf("log-in of %s: %d %s", user, a.status, a.body)
		}
	}
	const drain = "/change?service=shop&id=a&do=drain"
	for range 4 { // not even before etcd has answered what the user may read
		logIn("reader", "r")
		wantNotIn(t, b.get("/clients").body, "of-shop", "of-pay")
		wantNotIn(t, b.get("/service?name=pay").body, "of-pay")
	}
	clientsPage := b.open("/clients")
	clientsPage.wait(t, "retry:")
	wantIn(t, b.get("/clients").body, "etcd refuses to let you read all keys", "to those only who may read all keys")
	eventually(t, "all keys are refused", func() bool { return strings.Contains(b.get("/").body, "etcd refuses to let you read all keys") })
	wantIn(t, b.get("/").body, `The key range is \0 up to the last key`)
	eventually(t, "the prefix is listed", func() bool { return strings.Contains(b.get("/?prefix=shop/").body, ">shop</a>") })
	wantIn(t, b.get("/service?name=shop").body, ">a</th>", "Logged in as etcd user reader", "of-shop")
	wantIn(t, b.get("/service?name=pay").body, "etcd refuses to let you read the keys of service", "&#34;pay/&#34; up to &#34;pay0&#34;")
	wantNotIn(t, b.get("/service?name=pay").body, "10.0.0.2")
	wantIn(t, b.get("/history?name=pay").body, "etcd refuses")
	if a := b.submit(drain, drain, url.Values{"last": {"yes"}}); a.status != http.StatusForbidden {
		t.Errorf("a reader drains: %d", a.status)
	} else {
		wantIn(t, a.body, "etcd refuses", "shop/a")
	}
	logIn("root", "root's password")
	wantIn(t, b.get("/").body, ">shop</a>", ">pay</a>")
	wantIn(t, b.get("/clients").body, "of-shop", "of-pay", "2 clients are served")
	wantNotIn(t, clientsPage.String(), "of-shop", "of-pay")
	if a := b.submit(drain, drain, url.Values{"last": {"yes"}}); a.status != http.StatusSeeOther {
		t.Errorf("a writer drains: %d %s", a.status, a.body)
	}
	wantIn(t, b.log.String(), `who="etcd user root"`, `who="etcd user reader"`)
}

// TestUsersNeedAuth: where etcd has no users, nobody is let in.
func TestUsersNeedAuth(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	b := newBenchOn(t, etcd, Options{Access: Access{LogIn: func(ctx context.Context, user, password string) (*clientv3.Client, error) {
		client, err := clientv3.New(clientv3.Config{Endpoints: etcd.Endpoints()})
		if err != nil {
			return nil, err
		}
		if _, err = client.Authenticate(ctx, user, password); err != nil {
			_ = client.Close()
			return nil, err
		}
		return client, nil
	}}}, nil)
	a := b.submit("/login", "/login", url.Values{"user": {"root"}, "password": {"x"}})
	if a.status != http.StatusUnauthorized {
		t.Errorf("let in with %d", a.status)
	}
	wantIn(t, a.body, "authentication is not enabled")
}
