// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// stopTimeout is how long a member may take to shut down before it is killed: etcd
// waits up to 7 s for requests under way.
const stopTimeout = 15 * time.Second

// process is a started child process.
type process struct {
	child   *os.Process
	done    chan struct{} // closed when the child is gone
	stopped bool          // by us
}

// startProcess runs argv and appends its output to the file log.
func startProcess(argv []string, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = cleanEnv()
	cmd.SysProcAttr = diesWithUs()
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go p.run(cmd, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// run locks the thread that starts the child until the child is gone, since the child is killed
// when that thread ends.
func (p *process) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	p.child = cmd.Process
	started <- err
	if err == nil {
		_ = cmd.Wait()
		close(p.done)
	}
}

// cleanEnv is the environment without the variables of etcd, etcdctl and etcdutl.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "ETCD") })
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// failed reports whether the child has ended by itself.
func (p *process) failed() bool { return !p.running() && !p.stopped }

// kill ends the child at once.
func (p *process) kill() {
	p.stopped = true
	_ = p.child.Kill()
	<-p.done
}

// stop lets the child shut down, and kills it if it does not; it tells which.
func (p *process) stop() (orderly bool) {
	p.stopped = true
	_ = resume(p.child) // a paused child handles no signal
	_ = terminate(p.child)
	select {
	case <-p.done:
		return true
	case <-time.After(stopTimeout):
		p.kill()
		return false
	}
}
