// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/devetcd"
)

// TestScripts runs the scripts of testdata/script, whose README has the commands that are ours. With
// -update the texts that a script compares with are written anew.
func TestScripts(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		UpdateScripts:      *update,
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("ROLLCALL_ENDPOINTS", endpoint)
			env.Setenv("ROLLCALL_DIAL_TIMEOUT", "10s")
			env.Values[ownEtcd{}] = new(ownEtcd)
			service := strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")
			for _, prefix := range []string{service + "/", rollcall.ConfigPrefix + service + "/"} { // left by -count
				if _, err := client.Delete(t.Context(), prefix, clientv3.WithPrefix()); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"etcd": scriptEtcd, "put": scriptPut, "mask": scriptMask, "retry": scriptRetry,
		},
	})
}

// ownEtcd is the etcd that a script has started for itself.
type ownEtcd struct{ server *devetcd.Server }

func (own *ownEtcd) stop(ts *testscript.TestScript) {
	if own.server != nil {
		ts.Check(own.server.Close())
		own.server = nil
	}
}

// scriptEtcd starts or stops an etcd that only this script uses.
func scriptEtcd(ts *testscript.TestScript, neg bool, args []string) {
	own := ts.Value(ownEtcd{}).(*ownEtcd)
	switch {
	case neg || len(args) != 1 || args[0] != "start" && args[0] != "stop":
		ts.Fatalf("usage: etcd start|stop")
	case args[0] == "stop":
		own.stop(ts)
	case own.server != nil:
		ts.Fatalf("this script's etcd is running")
	default:
		server, err := devetcd.Start(context.Background(), devetcd.Options{})
		ts.Check(err)
		own.server = server
		ts.Defer(func() { own.stop(ts) })
		ts.Setenv("ROLLCALL_ENDPOINTS", server.Endpoint())
	}
}

// scriptPut writes a key, whatever its value.
func scriptPut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: put KEY VALUE")
	}
	client, err := rollcall.NewClient(rollcall.ClientConfig(ts.Getenv("ROLLCALL_ENDPOINTS")))
	ts.Check(err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err = client.Put(ctx, args[0], args[1])
	ts.Check(err)
}

// scriptMask hides what differs from run to run in the last command's output, before it is compared: leases,
// revisions and times, or what matches a pattern.
func scriptMask(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 && len(args) != 2 {
		ts.Fatalf("usage: mask [PATTERN REPLACEMENT]")
	}
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	fmt.Fprint(ts.Stdout(), masked(ts, stdout, args))
	fmt.Fprint(ts.Stderr(), masked(ts, stderr, args))
}

// revisions are those in JSON, in YAML and in sentences; others write to the shared etcd too.
var revisions = regexp.MustCompile(`(evision"?:? ?)\d+`)

func masked(ts *testscript.TestScript, text string, args []string) string {
	if len(args) == 0 {
		return numbered(revisions.ReplaceAllString(text, "${1}0"))
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	return pattern.ReplaceAllString(text, args[1])
}

// scriptRetry repeats a command until it succeeds or, with !, fails.
func scriptRetry(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: [!] retry COMMAND [ARG]...")
	}
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[0], args[1:]...)
		if (err != nil) == neg {
			return
		}
		if time.Now().After(until) {
			ts.Fatalf("not within 20s: %s: %v", strings.Join(args, " "), err)
		}
	}
}
