// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"errors"
	"os"
)

// The package builds on Windows, but the tests that need it run elsewhere.

func lockFile(string, bool) (func(), error) { return nil, errors.ErrUnsupported }
func terminate(p *os.Process) error         { return p.Kill() }
func pause(*os.Process) error               { return errors.ErrUnsupported }
func resume(*os.Process) error              { return errors.ErrUnsupported }
