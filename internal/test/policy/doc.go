// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package policy holds the project's rules about its own source, as tests.
package policy
