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

	last  reading // of the files
	taken reading // the last that the value was to be made of
}

// reading is what reading some files has given.
type reading struct {
	contents [][]byte
	err      error
}

// newFileValue reads the files for the first time.
func newFileValue[T any](what string, parse func(contents [][]byte) (*T, error), paths ...string) (*fileValue[T], error) {
	v := &fileValue[T]{what: what, paths: paths, parse: parse, last: readFiles(paths)}
	if err := v.take(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return v, nil
}

// get returns the last valid value.
func (v *fileValue[T]) get() *T { return v.value.Load() }

// refresh reads the files and follows a change when it is read for the second time in a row: a
// file may be in the middle of being written, and several are not replaced at once.
func (v *fileValue[T]) refresh(log *slog.Logger) {
	before := v.last
	v.last = readFiles(v.paths)
	if !v.last.equal(before) || v.last.equal(v.taken) {
		return
	}
	if err := v.take(); err != nil {
		log.Error("files have changed and cannot be used; going on with their last content", "flag", v.what, "cause", err)
		return
	}
	log.Info("files were read again, since they have changed", "flag", v.what, "files", v.paths)
}

// take makes a value of what was read last. After an error the value stays.
func (v *fileValue[T]) take() error {
	v.taken = v.last
	if v.taken.err != nil {
		return v.taken.err
	}
	value, err := v.parse(v.taken.contents)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(v.paths, " and "), err)
	}
	v.value.Store(value)
	return nil
}

func readFiles(paths []string) (r reading) {
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return reading{err: err}
		}
		r.contents = append(r.contents, content)
	}
	return r
}

func (r reading) equal(other reading) bool {
	return slices.EqualFunc(r.contents, other.contents, bytes.Equal) && fmt.Sprint(r.err) == fmt.Sprint(other.err)
}
