// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"net/url"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/cluster"
)

const (
	// clusterPause is how often an etcd cluster is looked at while somebody does.
	clusterPause = 5 * time.Second
	// clusterTimeout bounds each question to it.
	clusterTimeout = 2 * time.Second
)

// clusterView shows the etcd cluster.
type clusterView struct{ world *world }

func openCluster(w *world, _ url.Values) (opened, error) {
	return opened{key: "cluster", view: &clusterView{w}, query: url.Values{}}, nil
}

func (v *clusterView) follow(ctx context.Context, show func(frame)) {
	for {
		report := cluster.Inspect(ctx, v.world.directory.Client(), clusterTimeout)
		if ctx.Err() != nil {
			return
		}
		show(clusterFrame(report))
		select {
		case <-time.After(clusterPause):
		case <-ctx.Done():
			return
		}
	}
}

func clusterFrame(report *cluster.Report) frame {
	f := frame{pieces: []piece{
		{"judgement", fragment("cluster-judgement", report)},
		{"summary", fragment("cluster-summary", report)},
	}}
	seen := make(map[string]bool)
	for _, member := range report.Members {
		id := rowID(member.ID + member.Endpoint)
		if seen[id] {
			continue
		}
		seen[id] = true
		f.rows = append(f.rows, row{id: id, html: fragment("member-row", member)})
	}
	return f
}
