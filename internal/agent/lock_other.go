// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package agent

import "os"

// lockFile keeps a file open, which the system does not let another process remove. Two agents on
// one socket are not told apart.
func lockFile(path string) (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) }

// isPrivate reports that a directory is this user's alone, which nothing here tells.
func isPrivate(os.FileInfo) bool { return true }
