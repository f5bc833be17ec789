// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package watching_test

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

const writerFlag = "ROLLCALL_TEST_WRITER" // endpoint, key prefix, number of keys, bytes of metadata

// TestWriterProcess is no test: it is what write runs, so that the CPU of writing is not
// that of the test.
func TestWriterProcess(t *testing.T) {
	job := strings.Fields(os.Getenv(writerFlag))
	if len(job) != 4 {
		return
	}
	n, _ := strconv.Atoi(job[2])
	size, _ := strconv.Atoi(job[3])
	client := lab.Client(t, job[0])
	var wg sync.WaitGroup
	const writers = 16
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				key := fmt.Sprintf("%s%06d", job[1], i)
				value := fmt.Sprintf(`{"Op":0,"Addr":"%s:80","Metadata":%q}`, path.Base(key), strings.Repeat("m", size))
				if _, err := client.Put(lab.Context(t), key, value); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// write puts n endpoints, from another process.
func write(e *lab.Env, name string, n int) {
	e.OK(writeSized(e.Etcd.Endpoints()[0], e.Key(name+"-"), n, 1))
}

func writeSized(endpoint, prefix string, n, size int) error {
	cmd := exec.Command(os.Args[0], "-test.run=^TestWriterProcess$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d", writerFlag, endpoint, prefix, n, size))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("writer: %w\n%s", err, out)
	}
	return nil
}
