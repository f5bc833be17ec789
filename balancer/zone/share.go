// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package zone

// group says how near a place is to the caller: how many of the levels that are looked at
// it shares, from the outermost on. Places of one group have one child policy.
func (s *settings) group(p place) int {
	for level, want := range s.caller {
		if want != "" && want != p[level] {
			return level
		}
	}
	return levels
}

// split returns the share of the calls that each group gets, by the capacity of each
// place; the sum is 1, unless there is no capacity at all.
func (s *settings) split(capacity map[place]float64) (shares [levels + 1]float64) {
	rest := 1.0
	for level, want := range s.caller {
		if want == "" {
			continue
		}
		near := make(map[string]float64) // capacity by this level, where all above is the caller's
		for p, c := range capacity {
			if s.group(p) >= level {
				near[p[level]] += c
			}
		}
		stays := stay(near, want, s.below[level])
		shares[level] = rest * (1 - stays)
		rest *= stays
	}
	shares[levels] = rest
	return shares
}

// stay returns which share of the calls stays in one part of several: all as long as its
// capacity is at least so much of what is usual, in proportion below. What is usual is the
// capacity of the part that the average server is in. Without any capacity there is
// nothing better, and all stays.
func stay(capacity map[string]float64, part string, below float64) float64 {
	sum, squares := 0.0, 0.0
	for _, c := range capacity {
		sum += c
		squares += c * c
	}
	if sum == 0 {
		return 1
	}
	return min(1, capacity[part]/(below*squares/sum))
}
