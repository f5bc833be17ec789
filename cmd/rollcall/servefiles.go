// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// refreshPeriod is how often files are looked at.
const refreshPeriod = time.Second

// refresher is what is read again when it changes.
type refresher interface {
	refresh(*slog.Logger)
}

// fileValue is what was made of some files. One goroutine refreshes it.
type fileValue[T any] struct {
	what  string // the flags that name the files
	paths []string
	parse func(contents [][]byte) (*T, error)
	value atomic.Pointer[T]

	contents [][]byte // as last read
	failure  string   // of the last attempt; "": none
	told     bool     // it was logged
}

// newFileValue reads the files for the first time.
func newFileValue[T any](what string, parse func(contents [][]byte) (*T, error), paths ...string) (*fileValue[T], error) {
	v := &fileValue[T]{what: what, paths: paths, parse: parse}
	if _, err := v.read(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return v, nil
}

// get returns the last valid value.
func (v *fileValue[T]) get() *T { return v.value.Load() }

// read reads the files and reports whether there is a new value. After an error the value stays.
func (v *fileValue[T]) read() (changed bool, err error) {
	contents := make([][]byte, len(v.paths))
	for i, path := range v.paths {
		if contents[i], err = os.ReadFile(path); err != nil {
			return false, err
		}
	}
	if v.failure == "" && slices.EqualFunc(contents, v.contents, bytes.Equal) {
		return false, nil
	}
	v.contents = contents
	value, err := v.parse(contents)
	if err != nil {
		return false, fmt.Errorf("%s: %w", strings.Join(v.paths, " and "), err)
	}
	v.value.Store(value)
	return true, nil
}

// refresh reads the files if they have changed. Since several are not replaced at once, an error
// is logged when it is met for the second time.
func (v *fileValue[T]) refresh(log *slog.Logger) {
	changed, err := v.read()
	switch {
	case err == nil:
		v.failure, v.told = "", false
		if changed {
			log.Info("files were read again, since they have changed", "flag", v.what, "files", v.paths)
		}
	case err.Error() != v.failure:
		v.failure, v.told = err.Error(), false
	case !v.told:
		v.told = true
		log.Error("files have changed and cannot be used; going on with their last content", "flag", v.what, "cause", err)
	}
}
