// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"
)

// maxFile bounds what is read of a services file.
const maxFile = 16 << 20

// followed is a file that is read again and again. It is followed by its content, so that it may be
// written in place, renamed into place, or be reached through links that are exchanged, as
// Kubernetes does with ConfigMaps.
type followed struct {
	path    string
	current content // what was taken last
	next    content // what was read last
}

// content is what a file was found to be: a text, or why it cannot be read.
type content struct {
	text []byte
	err  error
}

func (c content) equal(o content) bool {
	return bytes.Equal(c.text, o.text) && fmt.Sprint(c.err) == fmt.Sprint(o.err)
}

// read takes the file as it is.
func (f *followed) read() content {
	f.current.text, f.current.err = readFile(f.path)
	f.next = f.current
	return f.current
}

// poll takes the file if it has changed and was the same when it was polled before: what is half
// written is left alone.
func (f *followed) poll() (c content, changed bool) {
	was := f.next
	f.next.text, f.next.err = readFile(f.path)
	if !f.next.equal(was) || f.next.equal(f.current) {
		return content{}, false
	}
	f.current = f.next
	return f.current, true
}

// readFile reads a regular file: a pipe would be empty the next time, or nobody might write to it.
func readFile(path string) (text []byte, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // which does not wait for a pipe's writer
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file, which can be read again and again", path)
	}
	text, err = io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s: longer than %d MiB", path, maxFile>>20)
	}
	return text, err
}
