// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package random

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

const (
	clients  = 3 // each with a link to etcd and consumers of every service
	services = 2
)

// step is one line of a history.
type step string

// generate returns histories: a good part of the steps are writes, some wait, and a fault
// lasts until it is undone or the history ends. Faults that a world does not know are
// nothing to it.
func generate(faults []string, most int) *rapid.Generator[[]step] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		id := func() string {
			return fmt.Sprintf("s%d/%s", rapid.IntRange(0, services-1).Draw(t, "service"), rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "id"))
		}
		// One client and one instance get most, so that steps meet.
		client := func() string { return rapid.SampledFrom([]string{"0", "0", "0", "1", "2"}).Draw(t, "client") }
		instance := func() string { return rapid.SampledFrom([]string{"0", "0", "0", "1"}).Draw(t, "instance") }
		switch kind := rapid.SampledFrom([]string{"write", "write", "write", "registration", "registration", "edit", "fault", "fault", "wait", "wait"}).Draw(t, "kind"); kind {
		case "write":
			switch op := rapid.SampledFrom([]string{"put", "put", "put", "drain", "spoil", "same", "unix", "twin", "leased", "del", "del", "touch", "many"}).Draw(t, "write"); op {
			case "touch":
				return step(op + " " + client() + " " + instance())
			case "many":
				return step(op)
			default:
				return step(op + " " + id())
			}
		case "registration":
			return step(rapid.SampledFrom([]string{"register", "register", "update", "leave", "undrain", "flap", "brief"}).Draw(t, "registration") + " " + client() + " " + instance())
		case "edit":
			return step(rapid.SampledFrom([]string{"edit-drain", "edit-undrain", "edit-weight", "edit-plain"}).Draw(t, "edit") + " " + client() + " " + instance())
		case "wait":
			if rapid.IntRange(0, 7).Draw(t, "check") == 0 {
				return "check"
			}
			return step("wait " + rapid.SampledFrom([]string{"10ms", "300ms", "1s", "5s", "15s", "1m", "10m"}).Draw(t, "wait"))
		default:
			op := rapid.SampledFrom(faults).Draw(t, "fault")
			if strings.HasSuffix(op, " N") {
				return step(strings.TrimSuffix(op, "N") + client())
			}
			return step(op)
		}
	}), 1, most)
}

func text(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(string(s) + "\n")
	}
	return b.String()
}

func parse(text string) (steps []step) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			steps = append(steps, step(line))
		}
	}
	return steps
}
