// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// globalFlags are the flags that the environment may set, each as ROLLCALL_NAME; all
// but the last also as ETCDCTL_NAME. For the credentials see resolveCredentials.
var globalFlags = []string{"endpoints", "cacert", "cert", "key", "dial-timeout", "output"}

func (a *app) addFlags(flags *pflag.FlagSet) {
	flags.StringSliceVar(&a.endpoints, "endpoints", []string{"127.0.0.1:2379"}, "etcd's endpoints")
	flags.StringVar(&a.cacert, "cacert", "", "file of the CA that signs etcd's certificates")
	flags.StringVar(&a.cert, "cert", "", "file of the client's certificate")
	flags.StringVar(&a.key, "key", "", "file of the client's key")
	flags.StringVar(&a.user, "user", "", "name or name:password of an etcd user")
	flags.StringVar(&a.password, "password", "", "password of --user")
	flags.StringVar(&a.passwordFile, "password-file", "", "file that holds the password of --user")
	flags.DurationVar(&a.dialTimeout, "dial-timeout", 2*time.Second, "time within which etcd must answer")
	flags.StringVarP(&a.output, "output", "o", "table", "table or json; ls and get also wide, yaml and name; status wide")
}

// resolveFlags fills flags that were not given: ROLLCALL_NAME wins over ETCDCTL_NAME.
func (a *app) resolveFlags(cmd *cobra.Command) error {
	for _, name := range globalFlags {
		flag := cmd.Flags().Lookup(name)
		if flag == nil || flag.Changed {
			continue
		}
		for _, prefix := range []string{"ROLLCALL_", "ETCDCTL_"} {
			if prefix == "ETCDCTL_" && name == "output" {
				break
			}
			variable := envName(prefix, name)
			value, ok := a.getenv(variable)
			if !ok || value == "" {
				continue
			}
			if err := flag.Value.Set(value); err != nil {
				return fail(exitUsage, "environment variable %s: %v", variable, err)
			}
			break
		}
	}
	known := strings.Fields(cmd.Annotations[outputsKey])
	if len(known) == 0 {
		known = []string{"table", "json"}
	}
	if !slices.Contains(known, a.output) {
		last := len(known) - 1
		return fail(exitUsage, "%s has no output %q: want %s or %s", cmd.CommandPath(), a.output, strings.Join(known[:last], ", "), known[last])
	}
	if a.dialTimeout <= 0 {
		return fail(exitUsage, "--dial-timeout %v: must be positive, such as 2s", a.dialTimeout)
	}
	return a.resolveCredentials()
}

func envName(prefix, flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// resolveCredentials sets user and password from the first source that has them: flags,
// ROLLCALL_*, ETCDCTL_*. A password from an earlier source wins, in whatever form it is
// given: in --user, as a password or as a file.
func (a *app) resolveCredentials() error {
	given := map[string]string{"user": a.user, "password": a.password, "password-file": a.passwordFile}
	sources := []func(name string) string{
		func(name string) string { return given[name] },
		func(name string) string { value, _ := a.getenv(envName("ROLLCALL_", name)); return value },
		func(name string) string { value, _ := a.getenv(envName("ETCDCTL_", name)); return value },
	}
	a.user, a.password, a.passwordFile = "", "", ""
	known := false // whether the password is known
	for _, from := range sources {
		user, password, file := from("user"), from("password"), from("password-file")
		if password != "" && file != "" && !known {
			return fail(exitUsage, "--password and --password-file exclude each other; give one")
		}
		if a.user == "" && user != "" {
			name, inline, found := strings.Cut(user, ":")
			a.user = name
			if found && !known && password == "" && file == "" {
				a.password, known = inline, true
			}
		}
		if !known && (password != "" || file != "") {
			a.password, a.passwordFile, known = password, file, true
		}
	}
	return a.checkCredentials()
}

// checkCredentials reads the password file. A user without a password is an error: etcd's
// client would not log in at all.
func (a *app) checkCredentials() error {
	if a.user == "" {
		return nil
	}
	if a.passwordFile != "" {
		data, err := os.ReadFile(a.passwordFile)
		if err != nil {
			return fail(exitUsage, "--password-file: %v", err)
		}
		a.password = strings.TrimRight(string(data), "\r\n")
		if a.password == "" {
			return fail(exitUsage, "--password-file %s: the file is empty", a.passwordFile)
		}
	}
	if a.password == "" {
		return fail(exitUsage, "user %q has no password; give --user name:password, --password or --password-file", a.user)
	}
	return nil
}
