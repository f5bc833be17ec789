// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/printable"
	"github.com/rollcall-grpc/rollcall/internal/timeline"
)

const (
	// historyLimit is how many events a page shows, the newest.
	historyLimit = 200
	// historyPause is the least time between two looks into etcd's history, which cost etcd
	// much more than a watch.
	historyPause = 10 * time.Second
	// replayTimeout bounds one look. A page whose history takes longer than it waits is filled later.
	replayTimeout = time.Minute
)

// historyView shows what happened to a service, out of etcd's own history.
type historyView struct {
	world   *world
	service string
	clock   *timeline.Clock
}

func (c *Console) openHistory(w *world, query url.Values) (opened, error) {
	service, err := rollcall.ParseService(query.Get("name"))
	if err != nil {
		return opened{}, err
	}
	asked := url.Values{"name": {service}}
	return opened{key: "history?" + asked.Encode(), view: &historyView{w, service, c.opts.Clock}, title: "History of " + service, query: asked, content: service}, nil
}

func (v *historyView) follow(ctx context.Context, show func(frame)) {
	changed := make(chan struct{}, 1)
	instances, config, err := v.world.directory.SubscribeServiceFunc(v.service,
		func(*rollcall.Snapshot, error) { poke(changed) }, func(*rollcall.ServiceConfig, error) { poke(changed) })
	if err != nil { // the Directory is closed, as the console will be
		show(v.frame(nil, err, time.Now()))
		return
	}
	defer instances.Close()
	defer config.Close()
	slow := time.AfterFunc(lookUpTimeout, func() { show(frame{pieces: []piece{{"summary", fragment("history-waiting", nil)}}}) })
	defer slow.Stop()
	for {
		began := time.Now()
		history, err := v.replay(ctx)
		slow.Stop()
		if ctx.Err() != nil {
			return
		}
		pause := max(historyPause, costFactor*time.Since(began))
		for again := false; !again; again = err != nil || len(changed) > 0 {
			show(v.frame(history, err, time.Now())) // the times of the same events become more exact
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-changed:
		default:
		}
	}
}

// replay reads what happened, one view after the other.
func (v *historyView) replay(ctx context.Context) (*rollcall.History, error) {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	select {
	case v.world.replaying <- struct{}{}:
		defer func() { <-v.world.replaying }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return v.world.directory.History(ctx, v.service, rollcall.HistoryOptions{Limit: historyLimit})
}

type historySummary struct {
	Service string
	*rollcall.History
	Problem string
	Refused string // the key range, where etcd refuses
	Config  string // why changes of the service config are missing
}

// historyLine is an event as a row.
type historyLine struct {
	inventory.HistoryRow
	Revision int64
	Time     string
	Class    string // how it looks
}

func (v *historyView) frame(history *rollcall.History, err error, now time.Time) frame {
	s := historySummary{Service: v.service, History: history}
	if err != nil {
		s.Problem = printable.Error(err)
		if denied(err) {
			from, through := keyRange(v.service + "/")
			s.Refused = from + " up to " + through
		}
		return frame{pieces: []piece{{"summary", fragment("history-summary", s)}}}
	}
	if history.ConfigErr != nil {
		s.Config = printable.Error(history.ConfigErr)
	}
	f := frame{pieces: []piece{{"summary", fragment("history-summary", s)}}}
	cluster, points := v.clock.Points()
	if cluster != history.Cluster {
		points = nil
	}
	spans := timeline.Spans(history.Events, points, now)
	for i := len(history.Events) - 1; i >= 0; i-- {
		e := history.Events[i]
		line := historyLine{inventory.HistoryRowOf(v.service, e), e.Revision, spans[i].Text(now.UTC()), eventClasses[e.Type]}
		f.rows = append(f.rows, row{id: rowID(strconv.FormatInt(e.Revision, 10) + " " + e.Key), html: fragment("history-row", line)})
	}
	return f
}

// eventClasses has how events look: as the status that they lead to.
var eventClasses = map[rollcall.EventType]string{rollcall.EventCame: "serving", rollcall.EventUndrained: "serving",
	rollcall.EventDrained: "draining", rollcall.EventGone: "gone", rollcall.EventInvalid: "invalid"}
