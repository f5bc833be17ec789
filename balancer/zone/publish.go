// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"math"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/connectivity"

	"github.com/rollcall-grpc/rollcall/internal/spread"
)

const never = math.MaxInt64

// divideLocked computes the share of each group.
func (p *policy) divideLocked() {
	if p.err != nil {
		return
	}
	n := len(p.capacities)
	healthy, all, sum := make(map[locality]float64, n), make(map[locality]float64, n), 0.0
	recovered, failing := make(map[locality]float64, n), false // as if no group were failing
	for at, c := range p.capacities {
		all[at] = c.all
		if p.groups[p.settings.group(at)].failingLocked() {
			recovered[at], failing = c.all, true
		} else {
			healthy[at], recovered[at] = c.healthy, c.healthy
			sum += c.healthy
		}
	}
	if sum == 0 {
		healthy = all
	}
	shares := p.settings.split(healthy)
	needed := shares
	if failing {
		needed = p.settings.split(recovered)
	}
	for i, share := range shares {
		g := p.groups[i]
		g.share = uint32(math.Round(share * spread.MaxRatio))
		if g.share > 0 || g.failingLocked() && needed[i] > 0 {
			g.unusedSince = time.Time{}
		} else if g.unusedSince.IsZero() {
			g.unusedSince = time.Now()
		}
	}
}

// publishLocked gives the channel a picker for the current shares, and sets the timer for
// the next reconcile.
func (p *policy) publishLocked() {
	if p.updating {
		return
	}
	if p.err != nil {
		p.cc.UpdateState(balancer.State{ConnectivityState: connectivity.TransientFailure, Picker: base.NewErrPicker(p.err)})
		return
	}
	p.divideLocked()
	next := time.Duration(never)
	for _, g := range p.groups {
		next = min(next, g.dueLocked())
		g.recordShareLocked(g.share)
	}
	p.timer.Reset(next)
	p.cc.UpdateState(p.stateLocked())
}

// stateLocked returns a state that divides calls among the groups that are connected; if
// none is, the state of the group that is closest to it, the nearest group first.
func (p *policy) stateLocked() balancer.State {
	var ready, asked division
	best := balancer.State{ConnectivityState: connectivity.TransientFailure}
	for i := len(p.groups) - 1; i >= 0; i-- { // the nearest first
		g := p.groups[i]
		if g.share == 0 {
			continue
		}
		s := g.state
		if s.Picker == nil {
			s = connecting // its child is about to be made
		}
		switch {
		case s.ConnectivityState == connectivity.Ready:
			ready.add(g.share, g.counted(s.Picker))
			continue
		case s.ConnectivityState == connectivity.Idle && !g.idle: // ring_hash connects when there is a pick
			asked.add(g.share, g.counted(s.Picker))
		}
		if best.Picker == nil || rank[s.ConnectivityState] < rank[best.ConnectivityState] {
			best = s
		}
	}
	if len(ready.pickers) == 0 {
		return best
	}
	ready.shares, ready.pickers = append(ready.shares, asked.shares...), append(ready.pickers, asked.pickers...)
	return balancer.State{ConnectivityState: connectivity.Ready, Picker: ready.picker()}
}

// rank orders the states of groups that are not connected by how soon they may be.
var rank = map[connectivity.State]int{connectivity.Connecting: 0, connectivity.Idle: 1, connectivity.TransientFailure: 2}

// division is pickers and their shares of the calls.
type division struct {
	shares  []uint32
	pickers []balancer.Picker
}

func (d *division) add(share uint32, picker balancer.Picker) {
	d.shares, d.pickers = append(d.shares, share), append(d.pickers, picker)
}

func (d *division) picker() balancer.Picker {
	if len(d.pickers) == 1 {
		return d.pickers[0]
	}
	shares, pickers := d.shares, d.pickers
	return spread.NewPicker(func() ([]uint32, []balancer.Picker) { return shares, pickers })
}
