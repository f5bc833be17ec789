// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"strings"
	"testing"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

func TestPasswordPrompt(t *testing.T) {
	cluster := etcdtest.New(t, etcdtest.Options{})
	auth := cluster.EnableAuth(t)
	auth.AddUser("bob", "pass word", etcdtest.Read("prompt/"))
	env := []string{"ROLLCALL_ENDPOINTS=" + cluster.Endpoints()[0]}
	for _, row := range []struct {
		name, typed string
		code        int
	}{
		{"the password", "pass word\n", 0},
		{"another", "password\n", exitNotPermitted},
		{"none", "\n", exitUsage},
		{"Ctrl-C", "\x03", 130},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			x := rollcallIn(t, env, "ls", "prompt/", "--user", "bob")
			x.Await(`password of etcd user "bob":`)
			x.Type(row.typed)
			if code := x.End(); code != row.code {
				t.Errorf("exit %d, want %d; screen %q", code, row.code, x.Written())
			}
			if strings.Contains(x.Written(), "pass word") {
				t.Errorf("the password is on the screen: %q", x.Written())
			}
		})
	}
}
