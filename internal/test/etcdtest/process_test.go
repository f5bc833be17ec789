// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// holdEnv makes this test binary start a child, print its process ID and wait.
const holdEnv = "ROLLCALL_TEST_HOLD"

func hold() {
	p, err := startProcess([]string{"sleep", "60"}, os.DevNull)
	if err != nil {
		panic(err)
	}
	fmt.Println(p.child.Pid)
	<-p.done
	os.Exit(0)
}

func TestChildDiesWithTestBinary(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux kills the children of a process that is killed")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid, err := bufio.NewReader(out).ReadString('\n')
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	status := filepath.Join("/proc", strings.TrimSpace(pid), "status")
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(status)
		if err != nil || strings.Contains(string(b), "State:\tZ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the child is still there:\n%s", b)
		}
	}
}

func TestChildOutlivesTheCallersThread(t *testing.T) {
	const callers = 3 // one of them may have the main thread, which never ends
	var locked sync.WaitGroup
	locked.Add(callers)
	started := make(chan *process)
	for range callers {
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			locked.Done()
			locked.Wait()
			p, err := startProcess([]string{"sleep", "60"}, os.DevNull)
			if err != nil {
				t.Error(err)
			}
			started <- p
		}()
	}
	var children []*process
	for range callers {
		if p := <-started; p != nil {
			children = append(children, p)
		}
	}
	time.Sleep(200 * time.Millisecond) // the threads end; nothing tells when
	for _, p := range children {
		if !p.running() {
			t.Error("a child died with the thread that asked for it")
		}
		p.kill()
	}
}
