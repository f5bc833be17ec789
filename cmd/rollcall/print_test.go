// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"":                  "",
		"plain, Grüße 日本":   "plain, Grüße 日本",
		"\x1b[31mred":       `\x1b[31mred`,
		"a\nb\tc\r":         `a\nb\tc\r`,
		"\u009b2J":          `\u009b2J`,
		"\u202eabc\u2028":   `\u202eabc\u2028`,
		"bad \xff\xc3 utf8": `bad \xff\xc3 utf8`,
		"\x00\x7f":          `\x00\x7f`,
		`back\slash "q"`:    `back\slash "q"`,
		"\U000e0001":        `\U000e0001`,
	} {
		if got := safe(in); got != want {
			t.Errorf("safe(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestSafeJSONIsTheSameValue: what is printed reads back as what was stored, and holds
// nothing that a terminal acts upon.
func TestSafeJSONIsTheSameValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.String().Draw(t, "text")
		raw, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		out := safeJSON(raw)
		var got string
		if err := json.Unmarshal(out, &got); err != nil || got != want {
			t.Fatalf("%q became %s and reads as %q, %v", want, out, got, err)
		}
		if i := strings.IndexFunc(string(out), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Fatalf("unprintable at %d in %q", i, out)
		}
	})
	if got := string(safeJSON([]byte("\"\xff\""))); got != `"\ufffd"` {
		t.Errorf("got %s", got)
	}
}

func TestMetadataText(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "",
		"{\n \"a\": [1,\t2] }":              `{"a":[1,2]}`,
		`"` + strings.Repeat("é", 70) + `"`: `"` + strings.Repeat("é", 58) + "…",
	} {
		if got := inventory.MetadataText(json.RawMessage(in)); got != want {
			t.Errorf("MetadataText(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestExitCodesAndTexts(t *testing.T) {
	a := &app{settings: settings{endpoints: []string{"a:1", "b:2"}, user: "bob:x", dialTimeout: 2 * time.Second}}
	dial := status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 1.2.3.4:1: connect: connection refused"`)
	for _, row := range []struct {
		name string
		err  error
		code int
		want string
	}{
		{"nothing", nil, 0, ""},
		{"other", errors.New("boom"), exitOther, "boom"},
		{"input", &rollcall.InputError{Field: "address", Value: "x", Reason: "no"}, exitUsage, `invalid address "x": no`},
		{"wrapped input", fmt.Errorf("a: %w", &rollcall.InputError{}), exitUsage, "a: "},
		{"lease too long", rpctypes.ErrLeaseTTLTooLarge, exitUsage, "too large"},
		{"refused connection", fmt.Errorf("get: %w", dial), exitUnreachable, "cannot reach etcd at a:1, b:2: get: dial tcp 1.2.3.4:1: connect: connection refused; is it running?"},
		{"no leader", rpctypes.ErrNoLeader, exitUnreachable, "no leader"},
		{"no answer", rollcall.ErrNoAnswer, exitUnreachable, "no answer"},
		{"denied", fmt.Errorf("put: %w", rpctypes.ErrPermissionDenied), exitNotPermitted, `denied access as user "bob": put: etcdserver: permission denied`},
		{"deadline", fmt.Errorf("get: %w", context.DeadlineExceeded), exitTimeout, "did not answer"},
		{"deadline of gRPC", status.Error(codes.DeadlineExceeded, "late"), exitTimeout, "late"},
		{"deadline by default", context.DeadlineExceeded, exitTimeout, "within 2s: context deadline exceeded; see --dial-timeout"},
		{"etcd's own time-out", rpctypes.ErrTimeout, exitTimeout, "gave up: etcdserver: request timed out; see rollcall status"},
		{"denied, and late", fmt.Errorf("%w (%w)", context.DeadlineExceeded, rpctypes.ErrPermissionDenied), exitNotPermitted, "denied"},
		{"SIGINT", signalError{syscall.SIGINT}, 130, "interrupt"},
		{"SIGTERM", fmt.Errorf("x: %w", signalError{syscall.SIGTERM}), 143, "terminated"},
		{"cancelled", context.Canceled, exitOther, "cancelled"},
		{"command", &exitError{code: 7}, 7, "exit 7"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := exitCode(row.err); got != row.code {
				t.Errorf("exit %d, want %d", got, row.code)
			}
			if row.err != nil {
				wantIn(t, "text", a.explain(row.err), row.want)
			}
		})
	}
	a.commandTimeout = 3 * time.Second
	wantIn(t, "text", a.explain(context.DeadlineExceeded), "within 5s: context deadline exceeded; see --command-timeout")
}

func TestVersion(t *testing.T) {
	info := &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: "true"}},
		Deps:     []*debug.Module{{Path: "go.etcd.io/etcd/client/v3", Version: "v3.9.0", Replace: &debug.Module{Path: "go.etcd.io/etcd/client/v3", Version: "v3.9.1"}}}}
	text := newVersionInfo(info).text()
	wantIn(t, "text", text, "v1.2.3", "abc (modified)", "2026-01-02T03:04:05Z", "3.9.1")
	wantIn(t, "without information", newVersionInfo(nil).text(), "(devel)", "etcd client", "gRPC")
	r := must(t, "127.0.0.1:1", "version", "-o", "json")
	var v versionInfo
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || v.Kind != "Version" || v.GRPC == "" || v.EtcdClient == "" {
		t.Errorf("got %+v, %v", v, err)
	}
	wantIn(t, "stdout", must(t, "127.0.0.1:1", "version").stdout, "rollcall", v.Go, v.GRPC)
}
