// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package background

// callDepth is less than a call of gRPC takes of a stack, which is less than 16 KiB. Sizes are powers of
// two: a stack with room for callDepth is the one that the call would get in the end.
const callDepth = 10 << 10

// GrowStack has the calling goroutine get a stack of at least 16 KiB at once. A new one has 2, as a rule,
// and would be copied three times on its way into gRPC, each time with more frames. The scenarios cold
// and lone of module bench show it.
//
//go:noinline
func GrowStack() {
	if never { // the frame counts, used or not
		var frame [callDepth]byte
		use(&frame)
	}
}

var never bool

//go:noinline
func use(frame *[callDepth]byte) { clear(frame[:]) }
