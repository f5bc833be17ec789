// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package watching_test

import (
	"testing"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
