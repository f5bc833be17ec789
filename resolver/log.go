// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"log/slog"
	"sync"
)

// maxWarned is the number of subjects that a onceLog knows.
const maxWarned = 1000

// onceLog logs a warning once for all channels of a builder, which learn of it one by one,
// and again after forget.
type onceLog struct {
	logger func() *slog.Logger

	mu   sync.Mutex
	last map[string]string // by subject, mostly a key: the last cause
}

// warn logs a message, unless the subject's last warning had the same cause.
func (l *onceLog) warn(subject, cause, message string, args ...any) {
	l.mu.Lock()
	last, known := l.last[subject]
	known = known && last == cause
	if l.last == nil || !known && len(l.last) >= maxWarned {
		l.last = make(map[string]string)
	}
	l.last[subject] = cause
	l.mu.Unlock()
	if !known {
		l.logger().Warn(message, args...)
	}
}

// forget ends the warning about a subject.
func (l *onceLog) forget(subject string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, subject)
}
