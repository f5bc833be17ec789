// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// settings are what the global flags, the environment and a context set: each has the name of its flag.
type settings struct {
	endpoints         []string
	discoverySRV      string
	discoverySRVName  string
	insecureDiscovery bool

	cacert, cert, key string
	insecureTransport bool
	skipVerify        bool

	user, password, passwordFile string
	token                        string

	dialTimeout, commandTimeout     time.Duration
	keepAliveTime, keepAliveTimeout time.Duration
	maxRequestBytes, maxRecvBytes   int

	output string
	debug  bool
	hex    bool

	context string            // that --context names
	origins map[string]origin // of the settings that something has set
}

// origin is where a setting comes from.
type origin struct {
	rank  int    // the nearest source has 0
	label string // such as --endpoints or ROLLCALL_ENDPOINTS
}

// settingNames are the settings in the order in which they are shown. The credentials among them are
// resolved together; see resolveCredentials.
var settingNames = slices.Concat([]string{"endpoints", "discovery-srv", "discovery-srv-name", "insecure-discovery",
	"cacert", "cert", "key", "insecure-transport", "insecure-skip-tls-verify"}, credentialNames, []string{"auth-jwt-token",
	"dial-timeout", "command-timeout", "keepalive-time", "keepalive-timeout", "max-request-bytes", "max-recv-bytes",
	"output", "debug", "hex"})

var credentialNames = []string{"user", "password", "password-file"}

// rareFlags are the global flags that the help of a command leaves out; rollcall help etcdctl has them.
var rareFlags = []string{"discovery-srv", "discovery-srv-name", "insecure-discovery", "insecure-transport", "insecure-skip-tls-verify",
	"auth-jwt-token", "command-timeout", "keepalive-time", "keepalive-timeout", "max-request-bytes", "max-recv-bytes",
	"debug", "hex", "write-out"}

func (a *app) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&a.context, "context", "", "context with the other settings; see rollcall context")
	flags.StringSliceVar(&a.endpoints, "endpoints", []string{"127.0.0.1:2379"}, "etcd's endpoints")
	flags.StringVarP(&a.discoverySRV, "discovery-srv", "d", "", "domain whose SRV records name etcd's endpoints")
	flags.StringVar(&a.discoverySRVName, "discovery-srv-name", "", "suffix of the service that --discovery-srv looks up")
	flags.BoolVar(&a.insecureDiscovery, "insecure-discovery", true, "use endpoints without TLS that --discovery-srv finds")
	flags.StringVar(&a.cacert, "cacert", "", "file of the CA that signs etcd's certificates")
	flags.StringVar(&a.cert, "cert", "", "file of the client's certificate")
	flags.StringVar(&a.key, "key", "", "file of the client's key")
	flags.BoolVar(&a.insecureTransport, "insecure-transport", true, "false: use TLS, even without a certificate and https://")
	flags.BoolVar(&a.skipVerify, "insecure-skip-tls-verify", false, "use TLS, but do not check etcd's certificate: for tests only")
	flags.StringVar(&a.user, "user", "", "etcd user, as name or name:password; a terminal is asked for the password")
	flags.StringVar(&a.password, "password", "", "password of --user")
	flags.StringVar(&a.passwordFile, "password-file", "", "file that holds the password of --user")
	flags.StringVar(&a.token, "auth-jwt-token", "", "JWT to use instead of a --user")
	flags.DurationVar(&a.dialTimeout, "dial-timeout", 2*time.Second, "time within which etcd must answer")
	flags.DurationVar(&a.commandTimeout, "command-timeout", 0, "time for answers, on top of --dial-timeout")
	flags.DurationVar(&a.keepAliveTime, "keepalive-time", 0, "silence after which the connection is probed (default 10s)")
	flags.DurationVar(&a.keepAliveTimeout, "keepalive-timeout", 0, "time in which such a probe must be answered (default 3s)")
	flags.IntVar(&a.maxRequestBytes, "max-request-bytes", 0, "size of the largest request (default 2 MiB)")
	flags.IntVar(&a.maxRecvBytes, "max-recv-bytes", 0, "size of the largest response (default: no limit)")
	flags.StringVarP(&a.output, "output", "o", "table", "table or json, and what else the help of a command names")
	flags.VarP(writeOut{a}, "write-out", "w", "etcdctl's --output: simple, table or json")
	flags.BoolVar(&a.debug, "debug", false, "log what gRPC does, to standard error")
	flags.BoolVar(&a.hex, "hex", false, "not supported: -o json has keyBase64 beside each key that is not UTF-8")
	markFiles(flags, fileSettings...)
	for _, name := range rareFlags {
		_ = flags.MarkHidden(name)
	}
}

// source is a place that settings come from.
type source struct {
	label func(name string) string
	get   func(name string) (value string, given bool, err error)
}

// sources returns the places where the settings of a command are looked for, the nearest first. A context ranks
// next to what names it: above the environment if --context does, below if it is the current one.
func (a *app) sources(cmd *cobra.Command) ([]source, error) {
	flags := cmd.Root().PersistentFlags()
	given := source{
		label: func(name string) string { return "--" + name },
		get: func(name string) (string, bool, error) {
			flag := flags.Lookup(name)
			if name == "output" && flags.Changed("write-out") {
				if flag.Changed {
					return "", true, errors.New("it is the same as --write-out; give one")
				}
				return a.output, true, nil
			}
			return flag.Value.String(), flag.Changed, nil
		},
	}
	sources := []source{given, a.environment("ROLLCALL_"), a.environment("ETCDCTL_")}
	if offline(cmd) && cmd.Name() != "show" {
		return sources, nil // a broken context is no obstacle to help
	}
	at, context, err := a.chosenContext(flags.Lookup("context").Changed)
	if err != nil || context == nil {
		return sources, err
	}
	return slices.Insert(sources, at, *context), nil
}

// environment is the source of the variables with a prefix; one that is empty is not set.
func (a *app) environment(prefix string) source {
	label := func(name string) string {
		if name == "output" && prefix == "ETCDCTL_" {
			name = "write-out"
		}
		return prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	}
	return source{label: label, get: func(name string) (string, bool, error) {
		value, _ := a.getenv(label(name))
		if name == "output" && prefix == "ETCDCTL_" && value != "" {
			output, err := etcdctlOutput(value)
			return output, true, err
		}
		return value, value != "", nil
	}}
}

// prepare resolves the settings of a command that is to run, and finds etcd's endpoints and the user's
// password if the command may need them.
func (a *app) prepare(cmd *cobra.Command) error {
	a.warnOfVariables()
	if err := a.resolveSettings(cmd); err != nil {
		return err
	}
	if err := a.checkSettings(cmd); err != nil {
		return err
	}
	if a.debug {
		a.logAll()
	}
	if offline(cmd) {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), a.dialTimeout)
	defer cancel()
	if err := a.discover(ctx); err != nil {
		return err
	}
	if err := a.checkEndpoints(); err != nil {
		return err
	}
	return a.resolvePassword(cmd.Context())
}

// resolveSettings fills the settings that no flag has given from the nearest source that has them.
func (a *app) resolveSettings(cmd *cobra.Command) error {
	flags := cmd.Root().PersistentFlags()
	sources, err := a.sources(cmd)
	if err != nil {
		return err
	}
	a.origins = make(map[string]origin)
	for _, name := range settingNames {
		for rank, from := range sources {
			value, given, err := from.get(name)
			if err != nil {
				return fail(exitUsage, "%s: %v", from.label(name), err)
			}
			if !given {
				continue
			}
			if rank > 0 && !slices.Contains(credentialNames, name) {
				if err := flags.Lookup(name).Value.Set(value); err != nil {
					return fail(exitUsage, "%s: %v", from.label(name), badValue(flags.Lookup(name), value, err))
				}
			}
			a.origins[name] = origin{rank, from.label(name)}
			break
		}
	}
	return a.resolveCredentials(sources)
}

// checkSettings refuses what a command cannot do, and what contradicts itself.
func (a *app) checkSettings(cmd *cobra.Command) error {
	if !slices.Contains(knownOutputs(cmd), a.output) {
		return fail(exitUsage, "%s has no output %q: want %s", cmd.CommandPath(), a.output, listOutputs(cmd))
	}
	if a.hex {
		return fail(exitUsage, "%s: keys are shown as text, with escapes; -o json has keyBase64 beside each that is not UTF-8", a.label("hex"))
	}
	for name, d := range map[string]time.Duration{"command-timeout": a.commandTimeout, "keepalive-time": a.keepAliveTime, "keepalive-timeout": a.keepAliveTimeout} {
		if d < 0 {
			return fail(exitUsage, "%s %v: must not be negative", a.label(name), d)
		}
	}
	if a.dialTimeout <= 0 {
		return fail(exitUsage, "%s %v: must be positive, such as 2s", a.label("dial-timeout"), a.dialTimeout)
	}
	if a.cert == "" != (a.key == "") {
		return fail(exitUsage, "--cert and --key go together; give both")
	}
	return a.checkAPI()
}

// nearer returns which of two settings that exclude each other comes from the nearer source, if any is given.
func (a *app) nearer(one, other string) (string, error) {
	first, hasFirst := a.origins[one]
	second, hasSecond := a.origins[other]
	switch {
	case hasFirst && hasSecond && first.rank == second.rank:
		return "", fail(exitUsage, "%s and %s exclude each other; give one", first.label, second.label)
	case hasSecond && (!hasFirst || second.rank < first.rank):
		return other, nil
	case hasFirst:
		return one, nil
	}
	return "", nil
}

// callerFlags are the flags of the connection that tell etcd who asks.
var callerFlags = append([]string{"cert", "key"}, credentialNames...)

// givenFlags returns the flags of the connection that were given, without what is secret: a command to be run
// later needs them, too, but for those to be left out. What is set elsewhere it finds there.
func (a *app) givenFlags(leaveOut ...string) (given []string) {
	if a.context != "" {
		given = append(given, "--context", a.context)
	}
	flags := a.command.Root().PersistentFlags()
	for _, name := range settingNames {
		flag := flags.Lookup(name)
		value := flag.Value.String()
		switch name {
		case "endpoints":
			value = joined(a.endpoints)
		case "user":
			value = a.user
		case "password", "auth-jwt-token", "output", "debug", "hex":
			continue
		}
		switch {
		case !a.isGiven(name) || value == "" || slices.Contains(leaveOut, name):
		case flag.Value.Type() == "bool":
			given = append(given, "--"+name+"="+value)
		default:
			given = append(given, "--"+name, value)
		}
	}
	return given
}

// isGiven reports whether a setting is that of its own flag.
func (a *app) isGiven(name string) bool {
	return a.command.Root().PersistentFlags().Changed(name) && a.origins[name].label == "--"+name
}

// filesOfRoot returns flags with a placeholder for each file that tells etcd who asks, where the caller gave one of his.
func (a *app) filesOfRoot() (flags []string) {
	for _, name := range []string{"password-file", "cert", "key"} {
		if a.isGiven(name) {
			flags = append(flags, "--"+name, "FILE")
		}
	}
	return flags
}

// label names where a setting comes from.
func (a *app) label(name string) string { return cmp.Or(a.origins[name].label, "--"+name) }

// knownOutputs are the outputs that a command can write.
func knownOutputs(cmd *cobra.Command) []string {
	if known := strings.Fields(cmd.Annotations[outputsKey]); len(known) > 0 {
		return known
	}
	return []string{"table", "json"}
}

// listOutputs lists them for a sentence.
func listOutputs(cmd *cobra.Command) string {
	known := knownOutputs(cmd)
	last := len(known) - 1
	return strings.Join(known[:last], ", ") + " or " + known[last]
}

// describeOutput has the help of a command tell its own outputs.
func describeOutput(cmd *cobra.Command) {
	cmd.Root().PersistentFlags().Lookup("output").Usage = listOutputs(cmd)
}

// flagError explains what is wrong with a flag of a command.
func flagError(cmd *cobra.Command, err error) error {
	describeOutput(cmd)
	problem := err.Error()
	switch err := err.(type) {
	case *pflag.NotExistError:
		var names []string
		cmd.Flags().VisitAll(func(flag *pflag.Flag) { names = append(names, "--"+flag.Name) })
		if dashed := "--" + err.GetSpecifiedName(); err.GetSpecifiedShortnames() == "" {
			problem = fmt.Sprintf("unknown flag: %s%s", dashed, didYouMean(dashed, names))
		} else {
			problem = fmt.Sprintf("unknown flag: -%s", err.GetSpecifiedName())
		}
	case *pflag.ValueRequiredError:
		_, usage := pflag.UnquoteUsage(err.GetFlag())
		problem = fmt.Sprintf("--%s needs a value: %s", err.GetFlag().Name, usage)
	case *pflag.InvalidValueError:
		problem = fmt.Sprintf("--%s: %v", err.GetFlag().Name, badValue(err.GetFlag(), err.GetValue(), err.Unwrap()))
	}
	return fail(exitUsage, "%s; see %s --help", problem, cmd.CommandPath())
}

// badValue says what a flag wants instead of a value that it refused.
func badValue(flag *pflag.Flag, value string, cause error) error {
	switch flag.Value.Type() {
	case "duration":
		if _, err := strconv.ParseFloat(value, 64); err == nil {
			return fmt.Errorf("%q has no unit: want a duration such as %ss or %sm", value, value, value)
		}
		return fmt.Errorf("%q is not a duration: want one such as 500ms, 10s or 1m30s", value)
	case "bool":
		return fmt.Errorf("%q is neither true nor false", value)
	case "int", "int64", "int32", "uint", "uint64", "uint32":
		return fmt.Errorf("%q is not a whole number in range", value)
	case "float64":
		return fmt.Errorf("%q is not a number", value)
	}
	return cause
}
