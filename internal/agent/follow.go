// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// maxFile bounds what is read of a services file.
const maxFile = 16 << 20

// followed is a file that is read again and again. It is followed by its content, so that it may be
// written in place, renamed into place, or be reached through links that are exchanged, as
// Kubernetes does with ConfigMaps.
type followed struct {
	path    string
	current []byte // what was taken last
	next    []byte // what was read last
}

// read takes the file's content as it is.
func (f *followed) read() ([]byte, error) {
	text, err := readFile(f.path)
	if err != nil {
		return nil, err
	}
	f.current, f.next = text, text
	return text, nil
}

// poll takes the file's content if it has changed and was the same when it was polled before: what is
// half written is left alone. A file that cannot be read counts as unchanged.
func (f *followed) poll() (text []byte, changed bool) {
	text, err := readFile(f.path)
	if err != nil {
		return nil, false
	}
	rests := bytes.Equal(text, f.next)
	f.next = text
	if !rests || bytes.Equal(text, f.current) {
		return nil, false
	}
	f.current = text
	return text, true
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s: longer than %d MiB", path, maxFile>>20)
	}
	return text, err
}
