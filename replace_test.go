// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"slices"
	"testing"
	"time"
)

// Another endpoint replaces a registration's with no moment in which the key has no value, or is marked
// as draining.
func TestReplace(t *testing.T) {
	withRegistrar(t, RegistrarOptions{NoOrigin: true}, func(d *registrarEnv) {
		a := d.registered("a", nil)
		key := a.key
		var values []string
		ctx, stop := context.WithCancel(context.Background())
		watch := d.conn.Client.Watch(ctx, key)
		defer func() {
			stop()
			for range watch { // until clientv3 has ended it
			}
		}()
		b, err := a.Replace(Endpoint{Addr: "host-b:80"})
		d.noError("replace", err)
		d.noError("wait", b.Wait(d.within(time.Second)))
		if s, _ := a.State(); s.Phase != Closed || b.ID() != a.ID() {
			t.Errorf("the first is %v, the ids are %q and %q", s.Phase, a.ID(), b.ID())
		}
		time.Sleep(time.Minute)
		for len(watch) > 0 {
			for _, ev := range (<-watch).Events {
				values = append(values, ev.Type.String()+" "+string(ev.Kv.Value))
			}
		}
		if want := []string{`PUT {"Op":0,"Addr":"host-b:80","Metadata":null}`}; !slices.Equal(values, want) {
			t.Errorf("got %q, want %q", values, want)
		}
		if _, err := a.Replace(Endpoint{Addr: "host-c:80"}); err == nil {
			t.Error("what was replaced is replaced again")
		}
		if _, err := b.Replace(Endpoint{ID: "other", Addr: "host-c:80"}); err == nil {
			t.Error("another id replaces it")
		}
		b.Close()
		c, err := b.Replace(Endpoint{ID: b.ID(), Addr: "host-c:80"})
		d.noError("replace what is being removed", err)
		d.noError("wait", c.Wait(d.within(time.Second)))
		d.holds(c, `{"Op":0,"Addr":"host-c:80","Metadata":null}`)
	})
}
