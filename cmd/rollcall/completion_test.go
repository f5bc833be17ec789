// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rollcall-grpc/rollcall/internal/test/terminal"
)

// completions returns what is offered for the last of some words.
func completions(t *testing.T, env []string, words ...string) []string {
	t.Helper()
	s := begin(t, env, append([]string{"__completeNoDesc"}, words...)...)
	if code := s.end(t); code != 0 {
		t.Errorf("exit %d, stderr %q", code, s.stderr.String())
	}
	lines := strings.Fields(s.stdout.String())
	if len(lines) == 0 {
		t.Fatalf("nothing for %q; stderr %q", words, s.stderr.String())
	}
	return lines[:len(lines)-1] // without the directive
}

func TestCompletions(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	put1(t, client, "completion/cart/10.0.0.1:80", `{"Addr":"10.0.0.1:80"}`)
	put1(t, client, "completion/cart/blue", `{"Addr":"10.0.0.2:80"}`)
	put1(t, client, "completion/pay/10.0.0.1:80", `{"Addr":"10.0.0.1:80"}`)
	put1(t, client, "completion/evil\x1b[2J/x", `{"Addr":"10.0.0.1:80"}`)
	put1(t, client, "_grpc_config/completion/cart", `{}`)
	file := t.TempDir() + "/contexts"
	if err := os.WriteFile(file, []byte("contexts: {lab: {endpoints: a}, prod: {endpoints: b}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"ROLLCALL_ENDPOINTS=" + endpoint, "ROLLCALL_DIAL_TIMEOUT=10s", "ROLLCALL_CONFIG=" + file}
	services := []string{"completion/cart", "completion/pay"}
	for _, row := range []struct {
		words string
		want  []string
	}{
		{"get completion/", services},
		{"ls completion/", services},
		{"resolve completion/", services},
		{"config get completion/c", services[:1]},
		{"drain completion/cart ", []string{"10.0.0.1:80", "blue"}},
		{"drain completion/cart blue ", []string{"10.0.0.1:80"}},
		{"weight completion/cart b", []string{"blue"}},
		{"weight completion/cart blue ", nil},
		{"get completion/cart ", []string{"10.0.0.1:80", "blue"}},
		{"get -A completion/c", nil},
		{"drain --all-services -l host=a completion/c", nil},
		{"drain completion/cart -l ", []string{"host=", "region=", "status=", "subzone=", "version=", "weight=", "zone="}},
		{"drain completion/cart -l zone=a ", nil},
		{"weight completion/cart -l zone=a ", nil},
		{"get completion/ --endpoints 127.0.0.1:1 ", nil},
		{"roles re", []string{"registrar", "resolver"}},
		{"roles resolver completion/p", services[1:]},
		{"roles resolver --prefix completion/p", nil},
		{"roles resolver --prefix completion", []string{"completion/"}},
		{"roles resolver --prefix completion/", []string{"completion/"}},
		{"completion ", []string{"bash", "fish", "powershell", "zsh"}},
		{"get svc -o ", []string{"json", "name", "table", "wide", "yaml"}},
		{"watch svc -o ", []string{"json", "table"}},
		{"get svc -w ", []string{"json", "simple", "table"}},
		{"get --context ", []string{"lab", "prod"}},
		{"context use ", []string{"lab", "prod"}},
		{"get completion/x --user bob ", nil},
	} {
		t.Run(row.words, func(t *testing.T) {
			got := completions(t, env, strings.Split(row.words, " ")...)
			slices.Sort(got)
			if !slices.Equal(got, row.want) && len(got)+len(row.want) > 0 {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

// Somebody who has pressed the tab key does not wait for an etcd that does not answer, whatever commands do.
func TestCompletionOfSilentEtcd(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for _, endpoint := range []string{mute.Addr().String(), "127.0.0.1:1"} {
		if got := completions(t, []string{"ROLLCALL_ENDPOINTS=" + endpoint, "ROLLCALL_DIAL_TIMEOUT=1h"}, "get", ""); len(got) > 0 {
			t.Errorf("got %q", got)
		}
	}
}

// TestFileFlags: the value of a flag that is the name of a file or directory is completed as one, and no other's.
func TestFileFlags(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			_, file := flag.Annotations[cobra.BashCompFilenameExt]
			_, dir := flag.Annotations[cobra.BashCompSubdirsInDir]
			told := flag.Name == "socket" || flag.Value.Type() == "string" && regexp.MustCompile(`\b(file|directory)\b`).MatchString(flag.Usage)
			if (file || dir) != told {
				t.Errorf("%s --%s (%s): completed as a file or directory: %v", cmd.CommandPath(), flag.Name, flag.Usage, file || dir)
			}
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(&app{}))
	for words, directive := range map[string]string{"ls --cacert ": ":0", "dev --data-dir ": ":16", "ls --user ": ":4"} {
		s := begin(t, nil, append([]string{"__completeNoDesc"}, strings.Split(words, " ")...)...)
		if code := s.end(t); code != 0 || strings.TrimSpace(s.stdout.String()) != directive {
			t.Errorf("%s: exit %d, stdout %q, want %q", words, code, s.stdout.String(), directive)
		}
	}
}

// TestShells completes in real shells; PowerShell's script is only written.
func TestShells(t *testing.T) {
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	put1(t, client, "shells/cart/10.0.0.1:8081", `{"Addr":"10.0.0.1:8081"}`)
	put1(t, client, "shells/cart/10.0.0.1:8082", `{"Addr":"10.0.0.1:8082"}`)
	put1(t, client, "shells/pay/10.0.0.9:9000", `{"Addr":"10.0.0.9:9000"}`)
	shell := func(t *testing.T, name string, args ...string) *exec.Cmd {
		t.Helper()
		path, err := exec.LookPath(name)
		if err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
		cmd := exec.Command(path, args...)
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "HOME="+cmd.Dir, "TERM=xterm", "PS1=$ ", "ROLLCALL_ENDPOINTS="+endpoint, "ROLLCALL_DIAL_TIMEOUT=10s")
		return cmd
	}
	for _, row := range []struct {
		name string
		args []string
		load string
	}{
		{"bash", []string{"--norc", "--noprofile"}, ". /usr/share/bash-completion/bash_completion; . <(rollcall completion bash)"},
		{"zsh", []string{"-f"}, "PS1='$ '; autoload -U compinit; compinit -u -D; . <(rollcall completion zsh)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			x := terminal.Start(t, shell(t, row.name, append(row.args, "-i")...), 120, 40)
			x.Await("$")
			x.Type(row.load + "; echo load''ed\n")
			x.Await("loaded")
			complete := func(line, want string) {
				var typed time.Time
				x.AwaitScreen(want, func(screen string) bool {
					if time.Since(typed) > 5*time.Second { // where etcd does not answer in time, nothing is completed
						x.Type("\x15" + line + "\t")
						typed = time.Now()
					}
					return strings.Contains(screen, want)
				})
			}
			complete("rollcall undrain shells/p", "rollcall undrain shells/pay")
			complete("rollcall undrain shells/pay 10.", "rollcall undrain shells/pay 10.0.0.9:9000")
			complete("rollcall undrain shells/pay 10.0.0.9:9000 -o js", "9000 -o json")
			x.Type("; echo compl''eted\n")
			x.Await("completed", `"shells/pay/10.0.0.9:9000"`)
			x.Type("exit\n")
			x.End()
		})
	}
	t.Run("fish", func(t *testing.T) {
		t.Parallel()
		out, err := shell(t, "fish", "-c", "rollcall completion fish | source; complete -C 'rollcall get sh'; complete -C 'rollcall drain shells/cart 10.'; complete -C 'rollcall und'").CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		wantIn(t, "completions", string(out), "shells/cart", "10.0.0.1:8081", "10.0.0.1:8082", "undrain\t")
	})
	t.Run("powershell", func(t *testing.T) {
		wantIn(t, "script", must(t, endpoint, "completion", "powershell").stdout, "Register-ArgumentCompleter")
	})
}
