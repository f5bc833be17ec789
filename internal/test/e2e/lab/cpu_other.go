// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package lab

import "time"

// CPU is not known here.
func CPU() time.Duration { return 0 }
