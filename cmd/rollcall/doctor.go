// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/credentials"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/doctor"
	"github.com/rollcall-grpc/rollcall/internal/plural"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// Exit codes of doctor, beside those of all commands.
const (
	exitWarnings = 10
	exitErrors   = 11
)

type doctorFlags struct {
	pingFlags
	noDial   bool
	maxDials int
}

// diagnosis is what doctor has found.
type diagnosis struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Errors     int              `json:"errors"`
	Warnings   int              `json:"warnings"`
	Notes      int              `json:"notes"`
	Services   int              `json:"services"`  // that were looked at
	Instances  int              `json:"instances"` // of them
	Dialled    int              `json:"dialled"`   // servers
	Findings   []doctor.Finding `json:"findings"`
	Unknown    []string         `json:"unknown,omitempty"` // what could not be looked at, and why
}

func newDoctor(a *app) *cobra.Command {
	var flags doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [SERVICE]...",
		Short: "Find faults in etcd, services and settings before they hurt",
		Long: "doctor looks at the etcd cluster (members, versions with known faults, quorum, alarms, disk,\n" +
			"clocks, certificates, rights), at what services have stored (keys, leases, service configs),\n" +
			"at the servers themselves, which it dials as ping does, and at the environment that it runs\n" +
			"in. Without SERVICE it looks at all of them. It changes nothing.\n\n" +
			"Each finding says what is wrong, why it matters and what mends it; docs/doctor.md explains\n" +
			"each by its id. Errors hurt now, warnings will, notes are worth knowing. What could not be\n" +
			"looked at is said on standard error.\n\n" +
			"The exit code is 0 if there is nothing worse than a note, 10 if there are warnings, 11 if\n" +
			"there are errors, and 4 or 5 if no member of etcd tells its status: 4 if none can be reached\n" +
			"or answers in time, 5 if access is denied.",
		Example:     "  rollcall doctor\n  rollcall doctor my-service --tls-ca ca.pem\n  rollcall doctor --no-dial -o json | jq -r '.findings[] | .id + \": \" + .what'",
		Annotations: outputs("table", "json", "yaml", "name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			services := make([]string, len(args))
			for i, arg := range args {
				service, err := rollcall.ParseService(arg)
				if err != nil {
					return err
				}
				services[i] = service
			}
			if flags.maxDials < 1 {
				return fail(exitUsage, "--max-dials %d: must be 1 or more; to dial none, give --no-dial", flags.maxDials)
			}
			return a.doctor(cmd.Context(), services, flags)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&flags.noDial, "no-dial", false, "do not dial servers")
	cmd.Flags().IntVar(&flags.maxDials, "max-dials", 500, "dial this many servers at most, evenly chosen from all")
	return cmd
}

func (a *app) doctor(ctx context.Context, services []string, flags doctorFlags) error {
	creds, err := flags.credentials()
	if err != nil {
		return err
	}
	opts := doctor.Options{
		Services: services, Timeout: a.dialTimeout, CheckConfig: resolver.CheckServiceConfig, UnknownFields: unknownFields, MaxDials: flags.maxDials, Progress: a.progress(),
		Settings: doctor.Settings{Endpoints: a.endpoints, DialTimeout: a.dialTimeout, User: a.user,
			Getenv: func(name string) string { value, _ := a.getenv(name); return value },
			Permit: func(services []string) (string, []string) {
				return a.who(), a.permit(roleFor(a.command), services, a.filesOfRoot()...)
			}},
	}
	for _, name := range settingNames {
		opts.Settings.Variables = append(opts.Settings.Variables,
			doctor.Variable{Etcdctl: a.environment("ETCDCTL_").label(name), Rollcall: a.environment("ROLLCALL_").label(name)})
	}
	if !flags.noDial {
		opts.Dial = func(ctx context.Context, addrs []string) []doctor.Answer {
			return a.dialServers(ctx, addrs, flags.pingFlags, creds)
		}
	}
	if err := a.identify(&opts); err != nil {
		return err
	}
	if opts.Client, err = a.client(); err != nil {
		return err
	}
	defer opts.Client.Close()
	if opts.Directory, err = rollcall.SharedDirectory(opts.Client); err != nil {
		return err
	}
	facts := doctor.Gather(ctx, opts)
	opts.Progress("")
	if cause := context.Cause(ctx); isSignal(cause) {
		return cause
	}
	d := newDiagnosis(facts)
	a.nameCluster(d.Findings)
	if facts.Cluster.Err == nil {
		a.sayLike(ctx, opts.Client, facts.Missing()...)
	}
	if err := a.printDiagnosis(d); err != nil {
		return err
	}
	if err := facts.Cluster.Err; err != nil {
		a.say("%s", a.explain(err))
		return noStatus(err)
	}
	return d.exit()
}

// nameCluster gives the commands of findings the flags of the connection: they are for the same cluster, wherever they
// are run, and by the same user, but for those that grant rights.
func (a *app) nameCluster(findings []doctor.Finding) {
	same, others := a.givenFlags(), a.givenFlags(callerFlags...)
	for _, f := range findings {
		for i, command := range f.Commands {
			switch {
			case command[0] != "rollcall":
			case command[1] == "roles":
				f.Commands[i] = slices.Concat(command[:1], others, command[1:])
			default:
				f.Commands[i] = slices.Concat(command[:1], same, command[1:])
			}
		}
	}
}

// identify sets what doctor dials etcd's HTTP with, and the client's certificate.
func (a *app) identify(opts *doctor.Options) error {
	if a.cert != "" {
		pair, err := tls.LoadX509KeyPair(a.cert, a.key)
		if err != nil {
			return fail(exitUsage, "--cert and --key: %v", err)
		}
		opts.Settings.Certificate = pair.Leaf
	}
	creds, err := a.credentials()
	opts.Credentials = creds
	return err
}

// progress returns what tells a terminal of each step; "" clears the line.
func (a *app) progress() func(step string) {
	if widthOf(a.stderr) == 0 {
		return func(string) {}
	}
	return func(step string) { fmt.Fprint(a.stderr, "\r\x1b[K"+step) }
}

func (a *app) dialServers(ctx context.Context, addrs []string, flags pingFlags, creds credentials.TransportCredentials) []doctor.Answer {
	asked := make([]answer, len(addrs))
	for i, addr := range addrs {
		asked[i].Addr = addr
	}
	a.pingAll(ctx, asked, flags.timeout, creds)
	answers := make([]doctor.Answer, len(addrs))
	for i, p := range asked {
		answers[i] = doctor.Answer{Connected: p.ConnectSeconds > 0, Answers: p.Answers, Health: p.Health, Error: p.Error}
	}
	return answers
}

func newDiagnosis(facts *doctor.Facts) diagnosis {
	d := diagnosis{APIVersion: apiVersion, Kind: "Diagnosis", Services: len(facts.Services), Dialled: len(facts.Answers),
		Findings: doctor.Diagnose(facts), Unknown: facts.Unknown}
	for _, s := range facts.Services {
		d.Instances += len(s.Rows)
	}
	for _, f := range d.Findings {
		switch f.Severity {
		case doctor.Error:
			d.Errors++
		case doctor.Warning:
			d.Warnings++
		default:
			d.Notes++
		}
	}
	return d
}

// exit returns the exit code of the worst finding.
func (d diagnosis) exit() error {
	switch {
	case d.Errors > 0:
		return &exitError{code: exitErrors}
	case d.Warnings > 0:
		return &exitError{code: exitWarnings}
	}
	return nil
}

func (a *app) printDiagnosis(d diagnosis) error {
	if !a.json() {
		for _, unknown := range d.Unknown {
			a.say("not known: %s", unknown)
		}
	}
	ids := make([]string, 0, len(d.Findings))
	for _, f := range d.Findings {
		ids = append(ids, f.ID)
	}
	return a.print(d, ids, func() string {
		var b strings.Builder
		fmt.Fprintf(&b, "errors: %d, warnings: %d, notes: %d; services: %d, instances: %d, servers dialled: %d\n",
			d.Errors, d.Warnings, d.Notes, d.Services, d.Instances, d.Dialled)
		for rest := d.Findings; len(rest) > 0; {
			n := 1
			for n < len(rest) && sameAdvice(rest[0], rest[n]) {
				n++
			}
			writeFindings(&b, rest[:n])
			rest = rest[n:]
		}
		return b.String()
	})
}

// sameAdvice reports whether findings differ in no more than what was found.
func sameAdvice(a, b doctor.Finding) bool {
	return a.ID == b.ID && a.Severity == b.Severity && a.Why == b.Why && a.Fix == b.Fix
}

const (
	maxFindings = 20 // of the same advice that the table shows
	maxCommands = 4  // of a finding
)

// writeFindings writes findings of the same advice, and that once.
func writeFindings(b *strings.Builder, same []doctor.Finding) {
	line := func(text string) { fmt.Fprintf(b, "    %s\n", safe(oneLine(text))) }
	f := same[0]
	fmt.Fprintf(b, "\n%-7s  %s", strings.ToUpper(string(f.Severity)), f.ID)
	if len(same) == 1 {
		b.WriteString("\n")
		line(f.What)
	} else {
		fmt.Fprintf(b, " (%d findings)\n", len(same))
	}
	line("Why: " + f.Why)
	line("Fix: " + f.Fix)
	for _, f := range same[:min(len(same), maxFindings)] {
		if len(same) > 1 {
			line(f.What)
		}
		for _, command := range f.Commands[:min(len(f.Commands), maxCommands)] {
			fmt.Fprintf(b, "      $ %s\n", shellLine(command))
		}
		if more := len(f.Commands) - maxCommands; more > 0 {
			fmt.Fprintf(b, "      and %s: -o json has all\n", plural.Count(more, "more command", "more commands"))
		}
	}
	if more := len(same) - maxFindings; more > 0 {
		fmt.Fprintf(b, "    and %s: -o json has all\n", plural.Count(more, "more finding", "more findings"))
	}
}
