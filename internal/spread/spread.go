// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package spread divides picks by weight: as many as each weight asks for, in turns that
// are as even as can be.
package spread

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
)

// MaxRatio is the greatest ratio of two weights that is kept. Where there is a greater
// one, all are scaled until the heaviest is MaxRatio, and the lightest are 1.
const MaxRatio = 65_535

// A table has so many slots where the weights have no smaller common measure: some for
// each weight, so that few are passed over, and no fewer than leastSlots.
const (
	slotsEach  = 4
	leastSlots = 256
)

// Table is a turn of picks that repeats. It never changes; any number of goroutines may
// pick at once.
type Table struct {
	slots  []uint32 // indexes of weights; nil: all in turn
	size   uint32
	steps  []step   // by index; nil: every slot is a pick
	starts []uint32 // by slot: see step
	next   atomic.Uint32
}

// step says which slots of an index are picks: one is where a sum that grows by each from
// slot to slot goes over a whole, 1<<32. A slot's sum starts at its start.
type step struct{ each, turn uint32 } // turn: what all its slots add

// New returns a table of at least one weight; a weight of 0 counts as 1. Where the
// weights, without their common divisor, add up to few enough, every turn has exactly as
// many picks of each. Then no number of picks from the start differs from what is due by
// as much as one. Otherwise a slot stands for a fraction of a pick, and it takes several
// turns for the shares to be exact.
func New(weights []uint32) *Table {
	t := &Table{size: uint32(len(weights))}
	t.next.Store(rand.Uint32())
	scaled, sum := scale(weights)
	if sum == uint64(len(weights)) {
		return t
	}
	counts := scaled
	if most := uint64(max(leastSlots, slotsEach*len(weights))); sum > most {
		unit := float64(sum) / float64(most)
		counts = make([]uint32, len(scaled))
		t.steps = make([]step, len(scaled))
		for i, w := range scaled {
			slots := math.Ceil(float64(w) / unit)
			counts[i] = uint32(slots)
			each := uint32(min(math.Round(float64(w)/unit/slots*(1<<32)), 1<<32-1))
			t.steps[i] = step{each, each * counts[i]}
		}
	}
	t.slots = arrange(counts)
	t.size = uint32(len(t.slots))
	if t.steps != nil {
		t.starts = make([]uint32, t.size)
		sums := make([]uint32, len(counts))
		for i := range sums {
			const golden = 0x9e3779b9 // every index starts somewhere else
			sums[i] = uint32(i) * golden
		}
		for at, i := range t.slots {
			t.starts[at] = sums[i]
			sums[i] += t.steps[i].each
		}
	}
	return t
}

// Next returns the index of the weight whose turn it is.
func (t *Table) Next() int {
	n := t.next.Add(1)
	if t.slots == nil {
		return int(n % t.size)
	}
	for {
		turn, at := n/t.size, n%t.size
		i := t.slots[at]
		if t.steps == nil || t.starts[at]+turn*t.steps[i].turn < t.steps[i].each {
			return int(i)
		}
		n = t.next.Add(1)
	}
}

// scale returns the weights within MaxRatio and without their common divisor, and the
// sum of them.
func scale(weights []uint32) (scaled []uint32, sum uint64) {
	heaviest, divisor := uint32(1), uint32(0)
	for _, w := range weights {
		heaviest = max(heaviest, w)
	}
	scaled = make([]uint32, len(weights))
	for i, w := range weights {
		w = max(w, 1)
		if heaviest > MaxRatio {
			w = max(uint32(math.Round(float64(w)*MaxRatio/float64(heaviest))), 1)
		}
		scaled[i] = w
		for a := w; a != 0; {
			divisor, a = a, divisor%a
		}
	}
	for i := range scaled {
		scaled[i] /= divisor
		sum += uint64(scaled[i])
	}
	return scaled, sum
}

// arrange returns a turn in which each index has its count of slots, evenly. The k-th of
// c picks out of n is due within the slots k*n/c to (k+1)*n/c, where there always is
// room for all; who is due first takes the first free slot of his.
func arrange(counts []uint32) []uint32 {
	n := uint64(0)
	for _, c := range counts {
		n += uint64(c)
	}
	type pick struct{ index, from uint32 }
	begin := make([]uint32, n+2) // by the slot before which a pick is due: where those begin in picks
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
	free := make([]uint32, n+1) // the next slot that may be free
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

// due returns the slot before which the k-th of c picks out of n is due.
func due(k, n, c uint64) uint64 { return ((k+1)*n + c - 1) / c }
