// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long a page may take for what it is to show.
const patience = 30 * time.Second

// tab is a page in a browser with cookies of its own. It fails the test on any error in the
// browser's console, any dialog, and any request to elsewhere.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string

	mu       sync.Mutex
	bytes    float64  // that have come over the network
	refusals []string // errors that the test brings about, which browsers log
}

func (s *site) open(path string) *tab {
	s.t.Helper()
	b := newTab(s.t, s.url)
	b.visit(path)
	return b
}

// newTab opens an empty tab, for the pages of a site.
func newTab(t *testing.T, url string) *tab {
	t.Helper()
	b := &tab{t: t, url: url}
	ctx, end := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.take))
	t.Cleanup(end)
	b.ctx = ctx
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	b.screen(1280, 900)
	return b
}

// take looks at what happens in the tab.
func (b *tab) take(event any) {
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if address := e.Request.URL; !strings.HasPrefix(address, b.url+"/") && address != "about:blank" {
			b.t.Errorf("the page asks for %s", address)
		}
	case *network.EventLoadingFinished:
		b.mu.Lock()
		b.bytes += e.EncodedDataLength
		b.mu.Unlock()
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" && !b.expected(e.Entry.Text) {
			b.t.Errorf("the browser logs: %s (%s)", e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			var text strings.Builder
			for _, arg := range e.Args {
				fmt.Fprintf(&text, "%s%s ", arg.Value, arg.Description)
			}
			if !b.expected(text.String()) {
				b.t.Errorf("the console has: %s", text.String())
			}
		}
	case *runtime.EventExceptionThrown:
		b.t.Errorf("a script fails: %s", e.ExceptionDetails.Text)
	case *page.EventJavascriptDialogOpening:
		b.t.Errorf("a dialog opens: %s", e.Message)
	}
}

// expect lets the browser log an answer with a status, such as 403.
func (b *tab) expect(status int) { b.expectLog(fmt.Sprintf("status of %d ", status)) }

// expectLog lets the browser log an error with a text.
func (b *tab) expectLog(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusals = append(b.refusals, text)
}

func (b *tab) expected(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, status := range b.refusals {
		if strings.Contains(text, status) {
			return true
		}
	}
	return false
}

// do runs actions, which must succeed in time.
func (b *tab) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := b.try(actions...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

func (b *tab) try(actions ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Do(ctx, actions...)
}

// call sends a command to the browser.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) (result R) {
	b.t.Helper()
	b.do(command.Method, chromedp.Func(func(ctx context.Context, target *chromedp.Target) (err error) {
		result, err = cdp.Call(ctx, target, command, params)
		return err
	}))
	return result
}

func (b *tab) visit(path string) { b.t.Helper(); b.do("visit "+path, chromedp.Navigate(b.url+path)) }

// click clicks once. A row that is shown anew between being found and being clicked is looked for
// again, as a person would.
func (b *tab) click(selector string) {
	b.t.Helper()
	err := b.try(chromedp.Click(chromedp.CSS(selector)))
	for i := 0; i < 10 && err != nil && strings.Contains(err.Error(), "Could not find node"); i++ {
		err = b.try(chromedp.Click(chromedp.CSS(selector)))
	}
	if err != nil {
		b.t.Fatalf("click %s: %v", selector, err)
	}
}
func (b *tab) press(keys string) { b.t.Helper(); b.do("press keys", chromedp.KeyEvent(keys)) }
func (b *tab) fill(selector, to string) {
	b.t.Helper()
	b.do("fill "+selector, chromedp.SendKeys(chromedp.CSS(selector), to))
}

// screen sets the size of the window.
func (b *tab) screen(width, height int64) {
	b.t.Helper()
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
}

// scheme chooses light or dark. Nothing moves, so that colours stay as they are.
func (b *tab) scheme(name string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
}

// eval returns the value of an expression in a tab.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// await waits until an expression is true. A page that is replaced meanwhile has no value.
func (b *tab) await(what, expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithDeadline(b.ctx, deadline)
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		cancel()
		if err == nil && is {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("not in time: %s (%v); the page says:\n%s", what, err, eval[string](b, "document.body.innerText"))
		}
	}
}

// shows waits until an element has a text.
func (b *tab) shows(selector, text string) {
	b.t.Helper()
	b.await(selector+" shows "+strconv.Quote(text), fmt.Sprintf("(document.querySelector(%q)?.innerText ?? '').includes(%q)", selector, text))
}

// row waits until the row of an instance or a service has a text.
func (b *tab) row(name, text string) {
	b.t.Helper()
	b.await("the row of "+name+" shows "+strconv.Quote(text), fmt.Sprintf("%s?.innerText.includes(%q)", rowOf(name), text))
}

// rowOf returns an expression for the row with a name.
func rowOf(name string) string {
	return fmt.Sprintf("[...document.querySelectorAll('#rows tr')].find(r => r.querySelector('th').innerText.split('\\n')[0] === %q)", name)
}

func (b *tab) transferred() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int(b.bytes)
}
