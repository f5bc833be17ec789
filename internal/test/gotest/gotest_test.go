// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package gotest

import (
	"fmt"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	const in = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:12: measured: 5ms\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:13: no: it failed\n"}
go: downloading something
{"Action":"fail","Package":"p","Test":"TestA"}
`
	var got, other strings.Builder
	if err := Read(strings.NewReader(in), &other, func(e Event) {
		figure, measured := e.Measured()
		text, logged := e.Logged()
		fmt.Fprintf(&got, "%s %s %q %v %q %v\n", e.Action, e.Test, text, logged, figure, measured)
	}); err != nil {
		t.Fatal(err)
	}
	const want = `run TestA "" false "" false
output TestA "" false "" false
output TestA "measured: 5ms" true "5ms" true
output TestA "no: it failed" true "no: it failed" false
fail TestA "" false "" false
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", &got, want)
	}
	if other.String() != "go: downloading something\n" {
		t.Errorf("other lines: %q", &other)
	}
}
