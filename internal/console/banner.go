// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// bannerData is why a page may not show what etcd holds now.
type bannerData struct {
	Kind          string // stale, over, denied or waiting
	What          string // what could not be read
	Cause         string
	Since         string
	SinceTime     string
	For           string // how long it was, of one that is over
	From, Through string // of the key range that is refused
}

// overFor is how long a page says that it is up to date again.
const overFor = 30 * time.Second

// banner says why the snapshots of a prefix are out of date or missing, and when that is over. It
// is one view's.
type banner struct {
	what, prefix string // what the view shows, and the keys
	stale        *rollcall.Staleness
	over         time.Time
}

// of returns the HTML for the latest snapshot; "": there is nothing to say.
func (b *banner) of(snap *rollcall.Snapshot, err error, now time.Time) string {
	d := bannerData{What: b.what}
	since := func(at time.Time) { d.Since, d.SinceTime = clock(at), at.UTC().Format(time.RFC3339) }
	switch {
	case snap != nil && snap.Staleness() == nil:
		if b.stale != nil && b.over.IsZero() {
			b.over = now
		}
		if b.over.IsZero() || now.Sub(b.over) > overFor {
			b.stale, b.over = nil, time.Time{}
			return ""
		}
		d.Kind, d.For = "over", inventory.Duration(b.over.Sub(b.stale.Since))
		since(b.over)
		return fragment("banner", d)
	case snap != nil:
		b.stale, b.over = snap.Staleness(), time.Time{}
		d.Kind, d.Cause = "stale", printable.Error(b.stale.Cause)
		since(b.stale.Since)
		err = b.stale.Cause
	case denied(err):
		d.Kind, d.Cause = "denied", printable.Error(err)
	case err != nil:
		d.Kind, d.Cause = "waiting", printable.Error(err)
	default:
		d.Kind, d.Cause = "waiting", "etcd has not answered yet"
	}
	if denied(err) {
		d.From, d.Through = keyRange(b.prefix)
	}
	return fragment("banner", d)
}

// clock writes a time of day.
func clock(at time.Time) string { return at.UTC().Format("15:04:05") + " UTC" }

// keyRange returns the range of the keys with a prefix, as etcd's roles name it.
func keyRange(prefix string) (from, through string) {
	if prefix == "" {
		return `\0`, "the last key"
	}
	return quoted(prefix), quoted(clientv3.GetPrefixRangeEnd(prefix))
}

func quoted(s string) string { return strconv.QuoteToGraphic(s) }

// rowID returns an id for the row of a key, which may hold any bytes.
func rowID(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "r-" + base64.RawURLEncoding.EncodeToString(sum[:12])
}
