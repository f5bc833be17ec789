// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// Ctrl-C is a key of an editor, such as vim: what is edited is not lost by it.
func TestCtrlCInTheEditor(t *testing.T) {
	endpoint := etcdtest.New(t, etcdtest.Options{}).Endpoints()[0]
	dir := t.TempDir()
	editor := filepath.Join(dir, "editor")
	script := "#!/bin/sh\ntrap 'touch " + dir + "/interrupted' INT\necho editing\n" +
		"until [ -e " + dir + "/interrupted ]; do sleep 0.1; done\n" +
		"echo '{\"loadBalancingConfig\":[{\"round_robin\":{}}]}' >\"$1\"\n"
	if err := os.WriteFile(editor, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	x := rollcallIn(t, []string{"ROLLCALL_ENDPOINTS=" + endpoint, "VISUAL=", "EDITOR=" + editor, "TMPDIR=" + dir}, "config", "set", "edited")
	x.Await("editing")
	time.Sleep(100 * time.Millisecond) // for the trap
	x.Type("\x03")
	x.Await("was written")
	if code := x.End(); code != 0 {
		t.Errorf("exit %d; screen %q", code, x.Written())
	}
}
