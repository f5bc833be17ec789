// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package browser tests the page of rollcall serve in a real Chromium, on a live etcd.
package browser
