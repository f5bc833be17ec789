// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
)

// Labelled calls f with a label that the goroutines started by it inherit, so that Left can ignore
// those of other tests.
func (e *Env) Labelled(f func()) {
	pprof.Do(context.Background(), pprof.Labels("check", e.T.Name()), func(context.Context) { f() })
}

// Left fails while a goroutine with the label runs code of one of these packages, or of any if none
// is given.
func (e *Env) Left(packages ...string) error {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return err
	}
	label := fmt.Sprintf(`"check":%q`, e.T.Name())
	in := func(stack string) func(string) bool {
		return func(pkg string) bool { return strings.Contains(stack, pkg+".") }
	}
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(stack, label) && (len(packages) == 0 || slices.ContainsFunc(packages, in(stack))) {
			return fmt.Errorf("still running: %s", stack)
		}
	}
	return nil
}
