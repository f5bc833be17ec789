// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/timeline"
)

// revisionList is what /revisions serves: when etcd told which revision.
type revisionList struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Cluster    uint64           `json:"cluster,string"`
	Points     []timeline.Point `json:"points"`
}

// revisionClock notes what a Directory sees of etcd's revision, and serves it.
type revisionClock struct{ timeline.Clock }

// run notes the revision once a second, until ctx ends.
func (c *revisionClock) run(ctx context.Context, directory *rollcall.Directory) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if cluster, revision, at := directory.Seen(); revision > 0 {
			c.Note(cluster, revision, at.UTC())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (c *revisionClock) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	cluster, points := c.Points()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(revisionList{apiVersion, "RevisionList", cluster, append([]timeline.Point{}, points...)})
}
