// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package spread

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/balancer"
	"pgregory.net/rapid"
)

// shares are what weights ask for.
func shares(weights []uint32) []float64 {
	heaviest, sum := 1.0, 0.0
	for _, w := range weights {
		heaviest = max(heaviest, float64(w))
	}
	all := make([]float64, len(weights))
	for i, w := range weights {
		all[i] = max(float64(w), 1)
		if heaviest > MaxRatio {
			all[i] = max(math.Round(all[i]*MaxRatio/heaviest), 1)
		}
		sum += all[i]
	}
	for i := range all {
		all[i] /= sum
	}
	return all
}

// worst returns how far the counts of the first picks were from what was due, at most.
func worst(t *table, weights []uint32, picks int) float64 {
	want, got, most := shares(weights), make([]int, len(weights)), 0.0
	for n := 1; n <= picks; n++ {
		got[t.pick().(numbered)]++
		for i := range got {
			most = max(most, math.Abs(float64(got[i])-float64(n)*want[i]))
		}
	}
	return most
}

// numbered is a picker that tests can tell from others.
type numbered int

func (numbered) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{}, nil
}

func pickers(n int) []balancer.Picker {
	all := make([]balancer.Picker, n)
	for i := range all {
		all[i] = numbered(i)
	}
	return all
}

// newTurn is a table at the beginning of its turn.
func newTurn(weights []uint32) *table {
	t := newTable(weights, pickers(len(weights)))
	t.next.Store(math.MaxUint32)
	return t
}

func TestEvenWhereExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(0, 12), 1, 20).Draw(t, "weights")
		table := newTurn(weights)
		if table.fractions != nil {
			t.Fatal("few small weights need no fractions")
		}
		if d := worst(table, weights, 3*len(table.slots)); d >= 1 {
			t.Errorf("%v: off by %.2f picks", weights, d)
		}
	})
}

func TestEvenWithFractions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.OneOf(rapid.Uint32(), rapid.Uint32Range(0, 100_000), rapid.Just(uint32(1))), 2, 40).Draw(t, "weights")
		table := newTurn(weights)
		if n := len(table.slots); n > maxSlots(len(weights))+len(weights) {
			t.Errorf("%d weights take %d slots", len(weights), n)
		}
		if d := worst(table, weights, 20_000); d > 2+float64(len(weights))/2 {
			t.Errorf("%v: off by %.2f picks", weights, d)
		}
	})
}

func TestExtremes(t *testing.T) {
	for _, tt := range []struct {
		weights []uint32
		picks   int
		want    []int
	}{
		{[]uint32{7}, 10, []int{10}},
		{[]uint32{0, 0, 0}, 9, []int{3, 3, 3}},
		{[]uint32{0, 1, 2}, 8, []int{2, 2, 4}},
		{[]uint32{1, 2, 7}, 10, []int{1, 2, 7}},
		{[]uint32{30, 60, 210}, 10, []int{1, 2, 7}},
		{[]uint32{1, 65_535}, 65_536 * 8, []int{8, 65_535 * 8}},
		{[]uint32{1, math.MaxUint32}, 65_536 * 8, []int{8, 65_535 * 8}},
		{[]uint32{math.MaxUint32, math.MaxUint32}, 4, []int{2, 2}},
		{[]uint32{1 << 31, 1 << 30}, 3, []int{2, 1}},
	} {
		t.Run(fmt.Sprint(tt.weights), func(t *testing.T) {
			table, got := newTurn(tt.weights), make([]int, len(tt.weights))
			for range tt.picks {
				got[table.pick().(numbered)]++
			}
			for i := range got {
				if d := got[i] - tt.want[i]; d < -1 || d > 1 || (table.fractions == nil) && d != 0 {
					t.Fatalf("picks %v, want %v", got, tt.want)
				}
			}
		})
	}
}

// The heaviest never runs on while others wait.
func TestNoRuns(t *testing.T) {
	weights := make([]uint32, 101)
	for i := range weights {
		weights[i] = 1
	}
	weights[0] = 100
	table := newTurn(weights)
	for n, last := 0, numbered(1); n < 1000; n++ {
		i := table.pick().(numbered)
		if i == 0 && last == 0 || i != 0 && last > 0 {
			t.Fatalf("pick %d: %d after %d", n, i, last)
		}
		last = i
	}
}

func TestManyAtOnce(t *testing.T) {
	weights := []uint32{1, 2, 7}
	table := newTable(weights, pickers(len(weights)))
	var mu sync.Mutex
	var wg sync.WaitGroup
	total := make([]int, len(weights))
	for range 4 {
		wg.Go(func() {
			got := make([]int, len(weights))
			for range 2500 {
				got[table.pick().(numbered)]++
			}
			mu.Lock()
			defer mu.Unlock()
			for i, n := range got {
				total[i] += n
			}
		})
	}
	wg.Wait()
	if total[0] != 1000 || total[1] != 2000 || total[2] != 7000 {
		t.Errorf("picks %v, want 1000, 2000 and 7000", total)
	}
}

func BenchmarkNewTable(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		weights := make([]uint32, n)
		for i := range weights {
			weights[i] = 1 + rand.Uint32N(100)
		}
		among := pickers(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				newTable(weights, among)
			}
		})
	}
}

func BenchmarkPick(b *testing.B) {
	for name, weights := range map[string][]uint32{"equal": {1, 1, 1}, "exact": {1, 2, 7}, "fractions": {1_000, 1_003, 65_521}} {
		table := newTable(weights, pickers(len(weights)))
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				table.pick()
			}
		})
	}
}

// A picker asks for its weights at the first pick, and not again.
func TestPickerAsksOnce(t *testing.T) {
	var asked atomic.Int32
	p := NewPicker(func() ([]uint32, []balancer.Picker) {
		asked.Add(1)
		return []uint32{1, 3}, pickers(2)
	})
	if asked.Load() != 0 {
		t.Error("asked before the first pick")
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if _, err := p.Pick(balancer.PickInfo{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}
