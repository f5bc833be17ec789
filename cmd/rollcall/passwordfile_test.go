// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A process that runs goes on with a password that was changed in etcd, and then in its file.
func TestPasswordFileIsReadAnew(t *testing.T) {
	endpoint := etcdWithUsers(t, "bob")
	must(t, endpoint, strings.Fields("roles registrar shop --grant-to bob --apply --user root:secret")...)
	root := rootClient(t, endpoint)
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change := func(password string) {
		t.Helper()
		if _, err := root.UserChangePassword(t.Context(), "bob", password); err != nil {
			t.Fatal(err)
		}
	}
	change("first")
	write("first")
	s := begin(t, []string{"ROLLCALL_ENDPOINTS=" + endpoint}, strings.Fields("register shop --id mine --addr 10.0.0.4:80 --ttl 3s --user bob --password-file "+file)...)
	listed := func() bool {
		resp, err := root.Get(t.Context(), "shop/mine")
		return err == nil && len(resp.Kvs) == 1
	}
	eventually(t, "registered", listed)
	change("second")
	time.Sleep(time.Second)
	write("second")
	time.Sleep(5 * time.Second) // more than the TTL
	eventually(t, "registered again", listed)
	s.interrupt()
	s.end(t)
	if listed() {
		t.Errorf("it is still there; stderr %q", s.stderr.String())
	}
}
