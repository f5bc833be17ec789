// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// swappableLogger is a handler that passes everything on to a logger that can be replaced, to
// slog.Default() where there is none.
type swappableLogger struct{ to atomic.Pointer[slog.Logger] }

func (s *swappableLogger) logger() *slog.Logger {
	if log := s.to.Load(); log != nil {
		return log
	}
	return slog.Default()
}

func (s *swappableLogger) Enabled(ctx context.Context, level slog.Level) bool {
	return s.logger().Handler().Enabled(ctx, level)
}

func (s *swappableLogger) Handle(ctx context.Context, r slog.Record) error {
	return s.logger().Handler().Handle(ctx, r)
}

func (s *swappableLogger) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.logger().Handler().WithAttrs(attrs)
}

func (s *swappableLogger) WithGroup(name string) slog.Handler {
	return s.logger().Handler().WithGroup(name)
}
