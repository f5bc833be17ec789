// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"fmt"
	"log/slog"
	"sync"
)

// mostWarned is how many keys an onceLog remembers.
const mostWarned = 1000

// onceLog logs what is wrong with a key once for all channels of a builder, which learn of
// it one by one.
type onceLog struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]string // by key: what was logged last
}

// warn logs a key, unless the same was the last that was logged of it.
func (l *onceLog) warn(key, message string, args ...any) {
	text := fmt.Sprint(message, args)
	l.mu.Lock()
	known := l.last[key] == text
	if l.last == nil || len(l.last) >= mostWarned {
		l.last = make(map[string]string)
	}
	l.last[key] = text
	l.mu.Unlock()
	if !known {
		l.log.Warn(message, append([]any{"key", key}, args...)...)
	}
}
