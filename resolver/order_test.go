// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"github.com/rollcall-grpc/rollcall"
)

func selectionOf(n int) *selection {
	var instances []*rollcall.Instance
	for i := range n {
		instances = append(instances, &rollcall.Instance{Key: fmt.Sprint("s/", i)})
	}
	s := newSelection(instances)
	return &s
}

// Channels have a shuffled prefix of their own, and keep it; no endpoint gets lost.
func TestOrderArranges(t *testing.T) {
	o := newOrder()
	for n := range 100 {
		s := selectionOf(n)
		var all, keys []string
		for _, ep := range s.endpoints {
			all = append(all, InstanceFromEndpoint(ep).Key)
		}
		for _, ep := range o.arrange(s, nil) {
			keys = append(keys, InstanceFromEndpoint(ep).Key)
		}
		byRank := slices.SortedFunc(slices.Values(all), func(a, b string) int { return cmp.Compare(o.rank(hashOf(a)), o.rank(hashOf(b))) })
		if k := min(n, shuffledPrefix); !slices.Equal(keys[:k], byRank[:k]) {
			t.Fatalf("of %d, %v come first, not %v", n, keys[:k], byRank[:k])
		}
		if slices.Sort(keys); !slices.Equal(keys, slices.Sorted(slices.Values(all))) {
			t.Fatalf("of %d, %v are left", n, keys)
		}
	}
	first := make(map[string]int)
	for range 3000 {
		first[InstanceFromEndpoint(newOrder().arrange(selectionOf(3), nil)[0]).Key]++
	}
	for key, n := range first {
		if n < 800 || n > 1200 {
			t.Errorf("%s is first in %d of 3,000 orders", key, n)
		}
	}
}
