// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package zone

// group returns how near a locality is to the caller's: the number of levels, from the
// outermost, at which they do not differ. The localities of a group share a child policy.
func (s *settings) group(l locality) int {
	return levels - s.caller.exported().Distance(l.exported())
}

// split returns the share of the calls that each group gets, by the capacities of the
// localities. The sum is 1.
func (s *settings) split(capacity map[locality]float64) (shares [levels + 1]float64) {
	rest := 1.0
	for level, want := range s.caller {
		if want == "" {
			continue
		}
		near := make(map[string]float64) // by this level, of localities that share those above
		for l, c := range capacity {
			if s.group(l) >= level {
				near[l[level]] += c
			}
		}
		stays := stay(near, want, s.below[level])
		shares[level] = rest * (1 - stays)
		rest *= stays
	}
	shares[levels] = rest
	return shares
}

// stay returns the share of the calls that stays in one of several parts: 1 while its
// capacity is at least below times the typical one, and proportionally less under that. The
// typical capacity is that of the part which the average server is in: with the mean of the
// parts, a small one beside a large one would count as failed. Without any capacity all calls
// stay.
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
