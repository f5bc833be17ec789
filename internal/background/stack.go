// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package background

// callDepth is less than what a call of gRPC takes of a stack, so that a stack which had room for it
// has room for the call: sizes are powers of two.
const callDepth = 10 << 10

// GrowStack has the calling goroutine get a stack of 16 KiB at once. A new one has 2, and is otherwise
// copied three times on its way into gRPC, frame by frame: a quarter of what the start of a client takes
// more than a Get. See the scenarios cold of module bench.
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
