// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// needNamespace returns the command that has another one be process 1.
func needNamespace(t *testing.T) []string {
	t.Helper()
	namespace := []string{"unshare", "--pid", "--fork", "--kill-child"}
	if os.Getuid() != 0 {
		namespace = append(namespace, "--user", "--map-root-user")
	}
	if out, err := exec.Command(namespace[0], append(namespace[1:], "true")...).CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: %s", err, out)
		}
		t.Skipf("no process namespaces here: %v: %s", err, out)
	}
	return namespace
}

// As process 1 of a container every command reaps orphans, not only one that runs a command itself.
func TestChecksAsInit(t *testing.T) {
	endpoint := sharedEtcd(t)
	p := launchBy(t, needNamespace(t), endpoint, &syscall.SysProcAttr{Setpgid: true}, "register", "t-init-checks", "--addr", "10.0.0.1:80",
		"--interval", "100ms", "--check", "exec:(setsid sleep 0.01 &); (setsid sleep 0.01 &); (setsid sleep 0.01 &); exit 0")
	if line, _ := p.stdout.ReadString('\n'); !strings.Contains(line, "KEY") {
		t.Fatalf("got %q; stderr %q", line, p.stderr.String())
	}
	init := childrenOf(t, p.cmd.Process.Pid)[0]
	eventually(t, "what checks left behind is reaped", func() bool { return len(childrenOf(t, init)) == 1 })
	if err := syscall.Kill(init, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, _ := p.end(t); code != 0 {
		t.Errorf("exit %d, want 0; stderr %q", code, p.stderr.String())
	}
}

// As process 1, register passes signals on and exits with the command's code.
func TestRegisterAsInit(t *testing.T) {
	const orphans = "(sleep 0.1 &); (sleep 0.1 &); (sleep 0.1 &); sleep 0.5; "
	p := launchBy(t, needNamespace(t), sharedEtcd(t), &syscall.SysProcAttr{Setpgid: true},
		"register", "t-init", "--addr", "10.0.0.1:80", "--drain", "0s", "--", "sh", "-c", orphans+script)
	if line, _ := p.stdout.ReadString('\n'); line != "started\n" {
		t.Fatalf("got %q; stderr %q", line, p.stderr.String())
	}
	init := childrenOf(t, p.cmd.Process.Pid)[0]
	if children := childrenOf(t, init); len(children) != 1 {
		t.Errorf("the children of process 1 are %v, want one", children)
	}
	if err := syscall.Kill(init, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if line, _ := p.stdout.ReadString('\n'); line != "got HUP\n" {
		t.Errorf("got %q", line)
	}
	if err := syscall.Kill(init, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, rest := p.end(t); code != 8 || rest != "got TERM\n" {
		t.Errorf("exit %d, stdout %q, want 8; stderr %q", code, rest, p.stderr.String())
	}
}
