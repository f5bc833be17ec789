// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package agent

import "time"

// monotonic returns 0: only Linux has systemd.
func monotonic() time.Duration { return 0 }
