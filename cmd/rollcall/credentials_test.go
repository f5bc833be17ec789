// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

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

// writerFunc is a function that is written to.
type writerFunc func(text []byte)

func (f writerFunc) Write(text []byte) (int, error) { f(text); return len(text), nil }

// What is typed as soon as the question is to be seen is not.
func TestPasswordIsNotEchoed(t *testing.T) {
	control, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	defer tty.Close()
	echoes := func() bool {
		state, err := unix.IoctlGetTermios(int(tty.Fd()), getTermios)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO != 0
	}
	a := &app{settings: settings{user: "bob"}, stderr: writerFunc(func(text []byte) {
		if !strings.Contains(string(text), "password of") {
			return
		}
		if echoes() {
			t.Error("the terminal still echoes when it asks")
		}
		if _, err := control.WriteString("pass word\n"); err != nil {
			t.Error(err)
		}
	})}
	if err := a.askPassword(t.Context(), tty); err != nil || a.password != "pass word" {
		t.Errorf("password %q, %v", a.password, err)
	}
	if !echoes() {
		t.Error("the terminal does not echo afterwards")
	}
}
