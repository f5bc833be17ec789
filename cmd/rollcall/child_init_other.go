// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

// isInit reports whether this is process 1 of a container: that is Linux's.
func isInit() bool { return false }

func superviseAsInit() int { return 0 }
