// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

var update = flag.Bool("update", false, "write the goldens")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// step changes what etcd has, or how it does.
type step func(*fakeetcd.Store, *fakeetcd.Conn)

// history returns the snapshots after each step, all in virtual time, which starts at midnight.
func history(t *testing.T, steps ...step) (snaps []*rollcall.Snapshot) {
	synctest.Test(t, func(t *testing.T) {
		store := fakeetcd.New()
		defer store.Close()
		conn := store.Connect(context.Background())
		defer conn.Close()
		dir, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		steps[0](store, conn)
		sub, err := dir.SubscribePrefix("")
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		for i, step := range steps {
			if i > 0 {
				step(store, conn)
			}
			time.Sleep(time.Minute)
			snap, err := sub.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			snaps = append(snaps, snap)
		}
	})
	return snaps
}

func shop(s *fakeetcd.Store, _ *fakeetcd.Conn) {
	s.Put("pay/a", `{"Addr":"10.0.1.1:80"}`)
	for i := range 30 {
		s.Put(fmt.Sprintf("shop/%02d", i), fmt.Sprintf(`{"Addr":"10.0.0.%d:80","Metadata":{"zone":"eu-%d","weight":%d,"version":"v2","started":"1999-12-31T23:00:00Z","team":"blue"}}`, i, i%2, i+1))
	}
	s.Put("shop/drained", `{"Addr":"10.0.0.99:80","Metadata":{"status":"draining"}}`)
	s.Put("shop/evil\x1b[2J", `{"Addr":"10.0.0.98:80","Metadata":{"zone":"\u001b]0;x\u0007東京"}}`)
	s.Put("team/very-long-service-name-that-does-not-fit-into-eighty-columns-of-a-terminal-or-forty", `text`)
}

func change(s *fakeetcd.Store, _ *fakeetcd.Conn) {
	s.Put("shop/new", `{"Addr":"10.0.0.50:80"}`)
	s.Put("shop/00", `{"Addr":"10.0.0.0:80","Metadata":{"zone":"eu-0","weight":7}}`)
	s.Put("shop/01", `{"Addr":"10.0.0.1:80","Metadata":{"zone":"eu-1","status":"draining"}}`)
	s.Delete("shop/02")
}

// midnight is when virtual time starts.
var midnight = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// press sends keys by their names: runes, or what stands in angle brackets.
func press(m *Model, keys string) {
	special := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "down": tea.KeyDown, "up": tea.KeyUp, "pgdown": tea.KeyPgDown,
		"pgup": tea.KeyPgUp, "home": tea.KeyHome, "end": tea.KeyEnd, "backspace": tea.KeyBackspace}
	for _, name := range strings.Fields(keys) {
		if code, ok := special[name]; ok {
			deliver(m, tea.KeyPressMsg{Code: code})
			continue
		}
		for _, r := range name {
			deliver(m, tea.KeyPressMsg{Code: r, Text: string(r)})
		}
	}
}

// deliver gives a message to the model, and then what comes of its command.
func deliver(m *Model, msg tea.Msg) {
	if _, cmd := m.Update(msg); cmd != nil {
		m.Update(cmd())
	}
}

func screen(t *testing.T, m *Model) string {
	t.Helper()
	lines := strings.Split(m.View().Content, "\n")
	if len(lines) != m.height {
		t.Errorf("%d lines, want %d", len(lines), m.height)
	}
	for i, line := range lines {
		lines[i] = strings.TrimRight(ansi.Strip(line), " ")
		if w := ansi.StringWidth(line); w > m.width {
			t.Errorf("line %d is %d wide, more than %d: %q", i, w, m.width, line)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); run with -update if that is meant:\n%s", file, diff)
	}
}

// started is a model that has seen a snapshot and then another.
func started(snaps []*rollcall.Snapshot, opts Options) *Model {
	m := New(opts)
	m.Update(Content{Snapshot: snaps[0], Now: midnight})
	for i, snap := range snaps[1:] {
		events := inventory.Events(snaps[i], snap, rollcall.SplitKey)
		for n := range events {
			if events[n].Change.New == nil {
				events[n].Reason = rollcall.DepartureExpired
			}
		}
		m.Update(Content{Snapshot: snap, Events: events, Now: midnight.Add(time.Duration(i+1) * time.Second)})
	}
	return m
}

func TestScreens(t *testing.T) {
	snaps := history(t, shop, change)
	for _, row := range []struct{ name, keys string }{
		{"services", ""},
		{"help", "?"},
		{"opened", "down enter"},
		{"opened-end", "down enter end"},
		{"opened-paged", "down enter pgdown pgdown up"},
		{"search", "down enter /eu-1"},
		{"search-typing-q-is-text", "/qd?"},
		{"search-kept", "down enter / DRAINING enter"},
		{"search-ended", "down enter / draining enter esc"},
		{"back", "down enter esc"},
		{"sorted", "s"},
		{"sorted-by-zone", "down enter ssss"},
		{"reversed", "r"},
		{"question", "down enter down d"},
		{"drained", "down enter down dy"},
		{"not-drained", "down enter down dn"},
		{"undrain-refused", "down enter uy"},
		{"nothing-to-drain", "d"},
	} {
		for _, size := range []struct{ width, height int }{{80, 24}, {40, 12}} {
			m := started(snaps, Options{Mark: func(_, id string, drain bool) error {
				if !drain {
					return errors.New("etcd said \x1b[31mno")
				}
				return nil
			}})
			m.Update(tea.WindowSizeMsg{Width: size.width, Height: size.height})
			press(m, row.keys)
			golden(t, fmt.Sprintf("%s-%dx%d", row.name, size.width, size.height), screen(t, m))
		}
	}
}

// outage begins between two looks at the connection, so that the next one is made for it.
func outage(_ *fakeetcd.Store, conn *fakeetcd.Conn) {
	time.Sleep(3 * time.Second)
	conn.Cut()
}

func TestStaleScreens(t *testing.T) {
	snaps := history(t, shop, change, outage, func(_ *fakeetcd.Store, conn *fakeetcd.Conn) { conn.Mend() })
	for _, size := range []struct{ width, height int }{{80, 24}, {40, 12}} {
		m := started(snaps[:3], Options{Prefix: "shop"})
		m.Update(tea.WindowSizeMsg{Width: size.width, Height: size.height})
		m.now = snaps[2].Staleness().Since.Add(3*time.Minute + 2*time.Second).UTC()
		m.Update(tea.KeyPressMsg{Code: tea.KeyDown})
		golden(t, fmt.Sprintf("stale-%dx%d", size.width, size.height), screen(t, m))
		m.Update(Content{Snapshot: snaps[3], Now: m.now})
		if text := screen(t, m); strings.Contains(text, "STALE") {
			t.Errorf("still stale:\n%s", text)
		}
	}
}

// Whatever the size, every line fits.
func TestSizes(t *testing.T) {
	snaps := history(t, shop, change)
	for width := 1; width < 120; width += 7 {
		for height := 1; height < 40; height++ {
			for _, keys := range []string{"", "down enter", "down enter d", "?", "/ab"} {
				m := started(snaps, Options{Color: true})
				m.Update(tea.WindowSizeMsg{Width: width, Height: height})
				press(m, keys)
				screen(t, m)
			}
		}
	}
}

func TestPrefixOpensItsService(t *testing.T) {
	snaps := history(t, shop)
	for prefix, want := range map[string]string{"shop": "shop", "shop/": "shop", "sho": "", "": ""} {
		if m := started(snaps, Options{Prefix: prefix}); m.opened != want {
			t.Errorf("top %q opens %q, want %q", prefix, m.opened, want)
		}
	}
}

// The selection and the question stay on an endpoint while others come and go before it.
func TestSelectionStays(t *testing.T) {
	snaps := history(t, shop, change, func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
		for i := range 5 {
			s.Put(fmt.Sprintf("shop/0%d-more", i), `{"Addr":"10.0.2.1:80"}`)
		}
	})
	var marked []string
	m := started(snaps[:2], Options{Prefix: "shop", Mark: func(service, id string, drain bool) error {
		marked = append(marked, fmt.Sprint(service, " ", id, " ", drain))
		return nil
	}})
	press(m, strings.Repeat("down ", 10)+"d")
	before, _ := m.instances.selection()
	at := m.instances.at
	m.Update(Content{Snapshot: snaps[2], Now: midnight})
	after, _ := m.instances.selection()
	if before.Key != after.Key || m.instances.at != at+5 {
		t.Errorf("selected %q at %d, before %q at %d", after.Key, m.instances.at, before.Key, at)
	}
	press(m, "down y") // down is no yes
	if len(marked) != 0 {
		t.Errorf("marked %v without a yes", marked)
	}
	press(m, "dy uy")
	if want := []string{"shop " + before.ID + " true", "shop " + before.ID + " false"}; !cmp.Equal(marked, want) {
		t.Errorf("marked %q, want %q", marked, want)
	}
}

func TestQuit(t *testing.T) {
	for _, row := range []struct {
		keys              string
		ctrl              bool
		quit, interrupted bool
	}{{"q", false, true, false}, {"/q", false, false, false}, {"/", true, false, true}, {"down enter d", true, false, true}} {
		m := started(history(t, shop), Options{})
		press(m, row.keys)
		if row.ctrl {
			m.Update(tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl})
		}
		if m.quit != row.quit || m.interrupted != row.interrupted {
			t.Errorf("%s: quit %v, interrupted %v", row.keys, m.quit, m.interrupted)
		}
	}
}

// Without colours there is none, and what they tell is in words.
func TestColor(t *testing.T) {
	snaps := history(t, shop, change)
	for _, color := range []bool{false, true} {
		m := started(snaps, Options{Prefix: "shop", Color: color})
		press(m, "end")
		content := m.View().Content
		if strings.Contains(content, "\x1b[33m") != color {
			t.Errorf("color %v: %q", color, content)
		}
		if !strings.Contains(content, "draining") {
			t.Errorf("no word for what drains: %q", content)
		}
	}
}

func TestRates(t *testing.T) {
	r := make(rates)
	for i := range 20 {
		r.add("s", midnight.Add(time.Duration(i)*time.Second))
		r.add("s", midnight.Add(time.Duration(i)*time.Second))
	}
	for after, want := range map[time.Duration]float64{19 * time.Second: 2, 24 * time.Second: 1, 28 * time.Second: 0.2} {
		fresh := make(rates)
		w := *r["s"]
		fresh["s"] = &w
		if got := fresh.perSecond("s", midnight.Add(after)); got != want {
			t.Errorf("rate after %v = %v, want %v", after, got, want)
		}
	}
	if got := r.perSecond("s", midnight.Add(time.Hour)); got != 0 || len(r) != 0 {
		t.Errorf("rate = %v, %d kept", got, len(r))
	}
}
