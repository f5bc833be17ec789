// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bufio"
	"context"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/internal/test/logtest"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

// bench is a console over an etcd of its own, and a browser.
type bench struct {
	testing.TB
	etcd    *etcdtest.Cluster
	client  *clientv3.Client
	console *Console
	server  *httptest.Server
	browser *http.Client
	log     *logtest.Buffer
}

func newBench(t testing.TB, opts Options) *bench {
	t.Helper()
	return newBenchOn(t, etcdtest.New(t, etcdtest.Options{}), opts, nil)
}

// newBenchOn starts a console. The server is started by start, nil for plaintext.
func newBenchOn(t testing.TB, etcd *etcdtest.Cluster, opts Options, start func(*httptest.Server)) *bench {
	t.Helper()
	b := &bench{TB: t, etcd: etcd, log: new(logtest.Buffer)}
	b.client = etcd.Client(t)
	directory, err := rollcall.NewDirectory(b.client, rollcall.DirectoryOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(directory.Close)
	opts.Logger = b.log.Logger(slog.LevelInfo)
	if b.console, err = New(directory, opts); err != nil {
		t.Fatal(err)
	}
	b.server = httptest.NewUnstartedServer(b.console)
	if start == nil {
		start = (*httptest.Server).Start
	}
	start(b.server)
	t.Cleanup(func() {
		b.console.Close()
		b.server.CloseClientConnections()
		b.server.Close()
	})
	b.browser = b.newBrowser()
	return b
}

// newBrowser returns a client with cookies of its own that follows no redirects.
func (b *bench) newBrowser() *http.Client {
	jar, _ := cookiejar.New(nil)
	transport := b.server.Client().Transport.(*http.Transport).Clone()
	b.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (b *bench) do(r *http.Request) answer {
	b.Helper()
	resp, err := b.browser.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func (b *bench) request(method, path string, form url.Values) *http.Request {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), method, b.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", b.server.URL)
	}
	return r
}

func (b *bench) get(path string) answer {
	b.Helper()
	return b.do(b.request(http.MethodGet, path, nil))
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// submit loads a page with a form, as a browser does, and sends it with the given fields.
func (b *bench) submit(page, action string, fields url.Values) answer {
	b.Helper()
	form := url.Values{}
	for name, values := range fields {
		form[name] = values
	}
	if found := csrfField.FindStringSubmatch(b.get(page).body); found != nil {
		form.Set("csrf", found[1])
	}
	return b.do(b.request(http.MethodPost, action, form))
}

func (b *bench) put(key, value string, opts ...clientv3.OpOption) {
	b.Helper()
	if _, err := b.client.Put(b.Context(), key, value, opts...); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) lease(seconds int64) clientv3.LeaseID {
	b.Helper()
	lease, err := b.client.Grant(b.Context(), seconds)
	if err != nil {
		b.Fatal(err)
	}
	return lease.ID
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// reader is a page that is open: it reads a stream and keeps all that was sent.
type reader struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	text strings.Builder
}

var liveAddress = regexp.MustCompile(`sse-connect="([^"]+)"`)

// open loads a page and follows it.
func (b *bench) open(page string) *reader {
	b.Helper()
	body := b.get(page).body
	found := liveAddress.FindStringSubmatch(body)
	if found == nil {
		b.Fatalf("%s has no stream: %s", page, body)
	}
	ctx, cancel := context.WithCancel(b.Context())
	r := &reader{cancel: cancel, done: make(chan struct{})}
	req := b.request(http.MethodGet, html.UnescapeString(found[1]), nil).WithContext(ctx)
	resp, err := b.browser.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		b.Fatalf("stream of %s: %v, %v", page, err, resp)
	}
	go func() {
		defer close(r.done)
		defer resp.Body.Close()
		in := bufio.NewReader(resp.Body)
		for {
			line, err := in.ReadString('\n')
			r.mu.Lock()
			r.text.WriteString(line)
			r.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	b.Cleanup(func() { cancel(); <-r.done })
	return r
}

func (r *reader) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// wait waits until the stream has sent a text.
func (r *reader) wait(t testing.TB, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(r.String(), want); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the stream has not sent %q, but %s", want, r.String())
		}
	}
}

func wantIn(t testing.TB, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}
}

func wantNotIn(t testing.TB, text string, none ...string) {
	t.Helper()
	for _, never := range none {
		if strings.Contains(text, never) {
			t.Errorf("%q is in %s", never, text)
		}
	}
}
