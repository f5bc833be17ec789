// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"log/slog"
	"sync"
)

// mostWarned is how many matters a onceLog remembers.
const mostWarned = 1000

// onceLog logs what is wrong once for all channels of a builder, which learn of it one by
// one, and again after it was mended.
type onceLog struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]string // by matter, mostly a key: what was wrong last
}

// warn logs a message, unless the same was wrong with the matter last.
func (l *onceLog) warn(matter, wrong, message string, args ...any) {
	l.mu.Lock()
	last, known := l.last[matter]
	known = known && last == wrong
	if l.last == nil || !known && len(l.last) >= mostWarned {
		l.last = make(map[string]string)
	}
	l.last[matter] = wrong
	l.mu.Unlock()
	if !known {
		l.log.Warn(message, args...)
	}
}

// forget notes that nothing is wrong with a matter any more.
func (l *onceLog) forget(matter string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, matter)
}
