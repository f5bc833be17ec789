// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package devetcd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// checkUnlocked returns an error if another member has dir open. etcd would wait for the lock
// for ever, and tell only its log.
func checkUnlocked(dir string) error {
	path := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(path); err != nil {
		return nil // missing, or not readable, which etcd reports
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: 200 * time.Millisecond})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("data directory %s is in use by another etcd: stop it or choose another directory", dir)
	}
	if err != nil {
		return fmt.Errorf("open data directory %s: %w", dir, err)
	}
	return db.Close()
}
