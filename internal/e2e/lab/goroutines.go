// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strings"
	"testing"
)

// Labelled calls f and returns what fails while a goroutine lives that f has started, by
// itself or through others. Goroutines inherit their labels: other tests are not in the way.
func Labelled(t *testing.T, f func()) (ended func() error) {
	label := fmt.Sprintf("%q", t.Name())
	pprof.Do(context.Background(), pprof.Labels("test", t.Name()), func(context.Context) { f() })
	return func() error {
		var profile bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
			return err
		}
		for stack := range strings.SplitSeq(profile.String(), "\n\n") {
			if strings.Contains(stack, "# labels: {") && strings.Contains(stack, label) {
				return fmt.Errorf("left running: %s", stack)
			}
		}
		return nil
	}
}
