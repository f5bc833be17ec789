// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package markdown

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long a command in the background may take to print what a document shows, on a busy machine.
const patience = time.Minute

// Shell runs the commands of a document in one bash, in namespaces of its own: all ports are free
// there, and whatever still runs ends with the shell.
type Shell struct {
	// Rewrite, if set, returns what is run in place of a line.
	Rewrite func(line string) string

	tb      testing.TB
	scratch string
	stdin   *os.File
	answers *bufio.Reader // a line when a block has run: the command that failed, if any
	blocks  int
}

// NewShell starts a shell in a directory, with variables beside those of the test, of which the settings of rollcall
// and etcdctl are left out: no document knows them. It skips the test where there are no namespaces.
func NewShell(tb testing.TB, dir string, env ...string) *Shell {
	tb.Helper()
	isolated := []string{"--net", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Geteuid() != 0 {
		isolated = append(isolated, "--map-root-user")
	}
	if out, err := exec.Command("unshare", append(isolated, "true")...).CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			tb.Fatalf("the commands of documents take namespaces of Linux: unshare: %v: %s", err, out)
		}
		tb.Skipf("the commands of documents take namespaces of Linux: unshare: %v: %s", err, out)
	}
	s := &Shell{tb: tb, scratch: tb.TempDir()}
	commands, stdin, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	answers, answering, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	s.stdin, s.answers = stdin, bufio.NewReader(answers)
	cmd := exec.Command("unshare", append(isolated, "bash", "--noprofile", "--norc")...)
	settings := func(variable string) bool {
		return strings.HasPrefix(variable, "ROLLCALL_") || strings.HasPrefix(variable, "ETCDCTL_")
	}
	cmd.Dir, cmd.Env = dir, append(slices.DeleteFunc(os.Environ(), settings), env...)
	cmd.Stdin, cmd.ExtraFiles = commands, []*os.File{answering}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	commands.Close()
	answering.Close()
	tb.Cleanup(func() {
		stdin.Close() // bash ends, and with it, as process 1, all others
		_ = cmd.Wait()
		answers.Close()
	})
	s.send("ip link set lo up")
	return s
}

var inBackground = regexp.MustCompile(`(?m) &( |$)`)

// Run runs blocks of commands one after the other, each once, as a reader does. No command may fail, and what a
// block prints must be what the document shows: commands that have to wait for something say so themselves. What
// was begun in the background prints in its own time, and is awaited. Run returns all that was printed.
func (s *Shell) Run(path string, blocks []Block) (printed string) {
	s.tb.Helper()
	for _, b := range blocks {
		at := fmt.Sprintf("%s:%d", filepath.Base(path), b.Line)
		output, err := s.run(b)
		if err != nil {
			s.tb.Fatalf("%s: %v:\n%s\nprinted:\n%s\nwant:\n%s", at, err, b.Text, output, b.Output)
		}
		s.tb.Logf("%s: %s\n%s", at, b.Text, output)
		printed += output
	}
	return printed
}

// run runs a block and returns what it has printed.
func (s *Shell) run(b Block) (printed string, err error) {
	s.tb.Helper()
	background := inBackground.MatchString(b.Text)
	failed, output := s.block(b.Text)
	if failed != "" {
		return read(output), fmt.Errorf("%q failed", failed)
	}
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		printed = read(output)
		switch {
		case b.Output == "" || matches(b.Output, printed, background):
			return printed, nil
		case !background || time.Since(began) > patience:
			return printed, errors.New("the output differs from what the document shows")
		}
	}
}

// block runs commands and returns the one that failed, if any, and the file with their output.
func (s *Shell) block(commands string) (failed, output string) {
	s.tb.Helper()
	if s.Rewrite != nil {
		var lines strings.Builder
		for line := range strings.Lines(commands) {
			lines.WriteString(strings.TrimRight(s.Rewrite(line), "\n") + "\n")
		}
		commands = lines.String()
	}
	s.blocks++
	script := filepath.Join(s.scratch, fmt.Sprint(s.blocks))
	output = script + ".out"
	if err := os.WriteFile(script, []byte(commands), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return s.send(fmt.Sprintf(". %s </dev/null >%s 2>&1 3>&-", script, output)), output
}

func (s *Shell) send(line string) (failed string) {
	s.tb.Helper()
	fmt.Fprintf(s.stdin, "failed=; trap '[ \"$failed\" ] || failed=$BASH_COMMAND' ERR\n%s\ntrap - ERR; printf '%%s\\n' \"${failed//$'\\n'/ }\" >&3\n", line)
	failed, err := s.answers.ReadString('\n')
	if err != nil {
		return "the shell has ended in " + line
	}
	return strings.TrimSpace(failed)
}

func read(path string) string {
	text, _ := os.ReadFile(path) // not yet there: nothing
	return string(text)
}
