// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rollcall-grpc/rollcall/internal/agent"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

func newAgentStatus(a *app) *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the agent of this machine does",
		Long: "status asks the agent that runs on this machine about its endpoints:\n\n" +
			"  HEALTH        healthy; failing (not often enough to be taken out, or kept by\n" +
			"                self-preservation); unhealthy (taken out); unchecked (not healthy yet)\n" +
			"  REGISTRATION  registered, draining, lost or registering; - until its checks pass\n" +
			"  SINCE         how long its checks have passed or failed\n\n" +
			"The exit code is 0 if all endpoints are healthy and registered, and the file in force is the one on disk;\n" +
			"1 if not, or if it is stopping; 3 if no agent runs; 5 if it is another user's; 6 if it does not answer, or hangs.",
		Example:     "  rollcall agent status\n  rollcall agent status -o json",
		Args:        usageArgs(cobra.NoArgs),
		Annotations: outputs("table", "wide", "json", "yaml"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := a.agentSocket(socket)
			if err != nil {
				return err
			}
			return a.agentStatus(cmd.Context(), path)
		},
	}
	addSocket(cmd.Flags(), &socket)
	return cmd
}

// agentHangs is after how long without a heartbeat an agent hangs.
const agentHangs = 30 * time.Second

// agentStatus is an agent's status, as JSON.
type agentStatus struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	agent.Status
}

func (a *app) agentStatus(ctx context.Context, socket string) error {
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	status, err := agent.Ask(ctx, socket)
	switch {
	case errors.Is(err, agent.ErrNotRunning):
		return fail(exitNotFound, "%v", err)
	case errors.Is(err, os.ErrPermission):
		a.say("%v", err)
		return &exitError{code: exitNotPermitted}
	case err != nil:
		a.say("%v", err)
		return &exitError{code: exitTimeout}
	}
	err = a.print(agentStatus{apiVersion, "AgentStatus", *status}, nil, func() string { return a.fitted(agentRows(status, time.Now())) })
	if err != nil {
		return err
	}
	if since := status.SelfPreservationSince; since != nil {
		a.say("all checks fail, for %s: suspecting the network of the agent; self-preservation takes nothing out", inventory.Age(*since, time.Now()))
	}
	if status.FileError != "" {
		a.say("the services file cannot be used, and its last good content stays in force: %s", status.FileError)
	}
	if status.Stopping {
		a.say("the agent is stopping: its endpoints drain, and are removed then")
	} else if time.Since(status.Heartbeat) > agentHangs {
		a.say("the agent hangs: it last looked at its file and its checks %s ago", inventory.Age(status.Heartbeat, time.Now()))
		return &exitError{code: exitTimeout}
	}
	if !status.OK() {
		return &exitError{code: exitOther}
	}
	return nil
}

func agentRows(s *agent.Status, now time.Time) [][]string {
	rows := [][]string{{"SERVICE", "ID", "ADDRESS", "CHECK", "HEALTH", "REGISTRATION", "SINCE", "LAST ERROR"}}
	for _, e := range s.Endpoints {
		rows = append(rows, []string{e.Service, e.ID, e.Address, strings.Join(e.Checks, " "), e.Health, e.Registration, inventory.Age(e.Since, now), e.LastError})
	}
	return rows
}
