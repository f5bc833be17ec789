// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"

	"github.com/rollcall-grpc/rollcall/internal/timeline"
)

// revisionList is what /revisions serves: when etcd told which revision.
type revisionList struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Cluster    uint64           `json:"cluster,string"`
	Points     []timeline.Point `json:"points"`
}

// revisionClock serves what a Clock has noted.
type revisionClock struct{ timeline.Clock }

func (c *revisionClock) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	cluster, points := c.Points()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(revisionList{apiVersion, "RevisionList", cluster, append([]timeline.Point{}, points...)})
}
