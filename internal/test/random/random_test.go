// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package random

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

var (
	hours = flag.Float64("hours", 20, "simulated hours of TestRandom")
	soak  = flag.Duration("soak", 0, "how long TestSoak runs on real etcd; 0: a short while")
	seed  = flag.Int("seed", 0, "seed of the first history; 0: another one each time")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// simulate plays a history on the fake, in virtual time, and returns how long it was.
func simulate(t *testing.T, steps []step) (simulated time.Duration, err error) {
	synctest.Test(t, func(*testing.T) {
		began := time.Now()
		w := newFakeWorld()
		defer w.close()
		var d *driver
		if d, err = newDriver(w); err != nil {
			return
		}
		defer d.close()
		err = d.play(steps)
		simulated = time.Since(began)
	})
	return simulated, err
}

func firstSeed() int {
	if *seed != 0 {
		return *seed
	}
	return int(time.Now().UnixNano() & 0x7fffffff)
}

func TestRandom(t *testing.T) {
	first, workers := firstSeed(), runtime.GOMAXPROCS(0)
	t.Logf("-seed %d", first)
	for w := range workers {
		t.Run(fmt.Sprint(w), func(t *testing.T) {
			t.Parallel()
			simulateHours(t, *hours/float64(workers), first+w, workers)
		})
	}
}

// simulateHours plays histories, of every stride-th seed, until they add up to so many hours.
func simulateHours(t *testing.T, hours float64, seed, stride int) {
	histories := generate(fakeFaults, 60)
	var simulated time.Duration
	began, played := time.Now(), 0
	for ; simulated.Hours() < hours; played++ {
		steps := histories.Example(seed + played*stride)
		took, err := simulate(t, steps)
		simulated += took
		if err != nil {
			steps, err = shorten(t, steps, err)
			t.Fatalf("%v\nkept as %s:\n%s", err, keep(t, steps, err), text(steps))
		}
	}
	t.Logf("%d histories, %.0f simulated hours in %v", played, simulated.Hours(), time.Since(began).Round(time.Second))
}

// shorten leaves steps out as long as what is left fails.
func shorten(t *testing.T, steps []step, failure error) ([]step, error) {
	for size := len(steps) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(steps); {
			shorter := append(append([]step(nil), steps[:at]...), steps[at+size:]...)
			if _, err := simulate(t, shorter); err != nil {
				steps, failure = shorter, err
			} else {
				at += size
			}
		}
	}
	return steps, failure
}

// keep writes a history to a file that TestHistories plays from now on.
func keep(t *testing.T, steps []step, failure error) string {
	sum := sha256.Sum256([]byte(text(steps)))
	file := filepath.Join("testdata", "histories", hex.EncodeToString(sum[:4])+".txt")
	comment := "# " + strings.Join(strings.Fields(fmt.Sprint(failure)), " ") + "\n"
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte(comment+text(steps)), 0o644)
	}
	if err != nil {
		t.Error(err)
	}
	return file
}

// TestHistories plays what once failed.
func TestHistories(t *testing.T) {
	files, err := filepath.Glob("testdata/histories/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := simulate(t, parse(string(data))); err != nil {
				t.Error(err)
			}
		})
	}
}
