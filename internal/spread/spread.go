// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package spread divides picks among pickers in proportion to weights, as evenly as possible.
package spread

import (
	"math"
	"math/rand/v2"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
)

// MaxRatio is the greatest ratio of two weights. Where there is a greater one, all are
// scaled until the heaviest is MaxRatio, and the lightest are 1.
const MaxRatio = 65_535

// maxSlots returns the greatest number of slots in a table of n weights: several for each,
// so that few slots are skipped, and fewer for each of many.
func maxSlots(n int) int { return max(256, min(8*n, 4*n+32_768)) }

// table is a sequence of slots, each a picker, that is gone through again and again. It is
// immutable but for next; any number of goroutines may pick at once. Slots hold the pickers
// themselves, not indexes of them, for the sake of BenchmarkPick.
type table struct {
	next      atomic.Uint32
	slots     []balancer.Picker
	fractions []fraction // of the slots; nil where each slot is a pick in every turn
}

// fraction decides in which turns its slot is a pick. The slots of a picker share a sum that
// grows by each from one to the next, and so by turn in a whole turn; a slot is a pick when
// the sum passes 1<<32, which is when it overflows. Its value at this slot in the first turn
// is start.
type fraction struct{ start, turn, each uint32 }

func (f *fraction) picks(turn uint32) bool { return f.start+turn*f.turn < f.each }

// newTable returns a table of pickers, at least one, by their weights; a weight of 0 counts
// as 1. Where the weights, divided by their greatest common divisor, add up to at most
// maxSlots, each picker has that many slots, and at no time has it had a whole pick more or
// less than its share. Otherwise a slot is a pick in some turns only, and it takes several
// turns for the shares to be exact.
func newTable(weights []uint32, among []balancer.Picker) *table {
	counts, sum := scale(weights)
	unit := max(float64(sum)/float64(maxSlots(len(weights))), 1)
	each := make([]uint32, len(counts))
	for i, w := range counts {
		slots := math.Ceil(float64(w) / unit)
		counts[i] = uint32(slots)
		each[i] = uint32(min(math.Round(float64(w)/unit/slots*(1<<32)), 1<<32-1))
	}
	order := arrange(counts)
	t := &table{slots: make([]balancer.Picker, len(order))}
	t.next.Store(rand.Uint32())
	for at, i := range order {
		t.slots[at] = among[i]
	}
	if unit > 1 {
		t.fractions = make([]fraction, len(order))
		sums := make([]uint32, len(counts))
		for at, i := range order {
			const golden = 0x9e3779b9 // spreads the pickers' first sums
			t.fractions[at] = fraction{i*golden + sums[i], counts[i] * each[i], each[i]}
			sums[i] += each[i]
		}
	}
	return t
}

// pick returns the picker whose turn it is.
func (t *table) pick() balancer.Picker {
	slots, fractions := t.slots, t.fractions // loaded before the atomic add, which is slow
	for {
		n, size := t.next.Add(1), uint32(len(slots))
		turn := n / size
		at := n - turn*size
		if fractions == nil || fractions[at].picks(turn) {
			return slots[at]
		}
	}
}

// scale returns the weights divided by their greatest common divisor, within MaxRatio, and
// their sum.
func scale(weights []uint32) (scaled []uint32, sum uint64) {
	heaviest, divisor := uint32(1), uint32(0)
	for _, w := range weights {
		heaviest = max(heaviest, w)
		for a := max(w, 1); a != 0; {
			divisor, a = a, divisor%a
		}
	}
	heaviest /= divisor
	scaled = make([]uint32, len(weights))
	for i, w := range weights {
		w = max(w, 1) / divisor
		if heaviest > MaxRatio {
			w = max(uint32(math.Round(float64(w)*MaxRatio/float64(heaviest))), 1)
		}
		scaled[i] = w
		sum += uint64(w)
	}
	return scaled, sum
}

// arrange returns a turn in which each index has its count of slots, evenly spaced. The k-th
// of c slots out of n must lie within k*n/c to (k+1)*n/c. Taken in the order of the ends of
// these ranges, each gets the first free slot of its own; there always is one. The counts
// 1 and 3 give [1 1 0 1].
func arrange(counts []uint32) []uint32 {
	n := uint64(0)
	for _, c := range counts {
		n += uint64(c)
	}
	type pick struct{ index, from uint32 }
	begin := make([]uint32, n+2) // by the end of the range: where its picks begin in picks
	for _, c := range counts {
		for k := range uint64(c) {
			begin[due(k, n, uint64(c))+1]++
		}
	}
	for i := range n {
		begin[i+1] += begin[i]
	}
	picks := make([]pick, n)
	for i, c := range counts {
		for k := range uint64(c) {
			at := &begin[due(k, n, uint64(c))]
			picks[*at] = pick{uint32(i), uint32(k * n / uint64(c))}
			*at++
		}
	}
	slots := make([]uint32, n)
	free := make([]uint32, n+1) // by slot: the next that may be free
	for i := range free {
		free[i] = uint32(i)
	}
	for _, p := range picks {
		at := p.from
		for free[at] != at {
			free[at] = free[free[at]]
			at = free[at]
		}
		slots[at], free[at] = p.index, at+1
	}
	return slots
}

// due returns the end of the range of the k-th of c slots out of n.
func due(k, n, c uint64) uint64 { return ((k+1)*n + c - 1) / c }
