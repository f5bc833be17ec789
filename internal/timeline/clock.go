// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package timeline tells when revisions of etcd's store happened. Etcd keeps no times, but
// revisions never go back: what is known of one bounds its neighbours.
package timeline

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall"
)

// Point is a moment at which etcd told its revision.
type Point struct {
	Revision int64     `json:"revision"`
	Time     time.Time `json:"time"`
}

// MaxPoints is how many points a Clock keeps: one a second for a day.
const MaxPoints = 24 * 60 * 60

// Clock collects points of one store. The zero value is ready for use, by many goroutines.
type Clock struct {
	mu      sync.Mutex
	cluster uint64
	points  []Point // Invariant: neither revisions nor times go back, and at most two have the same revision.
}

// Note takes in that a cluster told a revision. One that is below the last is of another history
// of the store, which ends what was known, and so does another cluster. While the revision stays,
// the first and the last moment are kept.
func (c *Clock) Note(cluster uint64, revision int64, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.points)
	switch {
	case n == 0:
	case cluster != c.cluster || revision < c.points[n-1].Revision:
		c.points, n = nil, 0
	case !at.After(c.points[n-1].Time):
		return
	case n > 1 && c.points[n-2].Revision == revision:
		c.points = c.points[:n-1]
	case n == MaxPoints:
		c.points = slices.Delete(c.points, 0, MaxPoints/24)
	}
	c.cluster, c.points = cluster, append(c.points, Point{revision, at})
}

// Follow notes once a second what a Directory sees of etcd's revision, until ctx ends.
func (c *Clock) Follow(ctx context.Context, directory *rollcall.Directory) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if seen := directory.Seen(); seen.Revision > 0 {
			c.Note(seen.Cluster, seen.Revision, seen.At.UTC())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Points returns the points, the oldest first, and the cluster that they are of.
func (c *Clock) Points() (cluster uint64, points []Point) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cluster, slices.Clone(c.points)
}
