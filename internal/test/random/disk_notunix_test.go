// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package random

// hangDisk does nothing: here is no file that hangs.
func (w *realWorld) hangDisk() {}

func (w *realWorld) thawDisk() {}
