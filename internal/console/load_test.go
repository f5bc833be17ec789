// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bufio"
	"context"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// crowd is a service of many instances that many pages are open on.
type crowd struct {
	*bench
	pages   int
	written [2000]atomic.Int64 // when a step was written, in ns
	seen    []atomic.Int64     // the last step that a page has seen
	late    []time.Duration    // of each page, the worst
	ended   sync.WaitGroup
	cancel  context.CancelFunc
}

var stepText = regexp.MustCompile(`step=(\d+)`)

func newCrowd(t testing.TB, instances, pages int) *crowd {
	c := &crowd{bench: newBench(t, Options{}), pages: pages, seen: make([]atomic.Int64, pages), late: make([]time.Duration, pages)}
	for from := 0; from < instances; from += 100 {
		var ops []clientv3.Op
		for i := from; i < min(from+100, instances); i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("shop/%04d", i), `{"Addr":"10.0.0.1:1"}`))
		}
		if _, err := c.client.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are shown", func() bool {
		return strings.Contains(c.get("/service?name=shop").body, fmt.Sprintf("%s instances: ", count(instances)))
	})
	address := html.UnescapeString(liveAddress.FindStringSubmatch(c.get("/service?name=shop").body)[1])
	ctx, cancel := context.WithCancel(t.Context())
	c.cancel = cancel
	for page := range pages {
		resp, err := c.browser.Do(c.request(http.MethodGet, address, nil).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		c.ended.Go(func() {
			defer resp.Body.Close()
			in := bufio.NewReaderSize(resp.Body, 1<<16)
			for {
				line, err := in.ReadSlice('\n')
				if err != nil && err != bufio.ErrBufferFull {
					return
				}
				for _, m := range stepText.FindAllSubmatch(line, -1) {
					step, _ := strconv.ParseInt(string(m[1]), 10, 64)
					if step > c.seen[page].Load() {
						c.seen[page].Store(step)
						c.late[page] = max(c.late[page], time.Since(time.Unix(0, c.written[step].Load())))
					}
				}
			}
		})
	}
	return c
}

// change makes changes, each to another instance, and waits until all pages have seen the last.
func (c *crowd) change(instances, steps int, every time.Duration) {
	c.Helper()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for step := 1; step <= steps; step++ {
		<-ticker.C
		c.written[step].Store(time.Now().UnixNano())
		c.put(fmt.Sprintf("shop/%04d", step%instances), fmt.Sprintf(`{"Addr":"10.0.0.1:1","Metadata":{"step":%d}}`, step))
	}
	eventually(c, "all pages have seen the last change", func() bool {
		for page := range c.seen {
			if c.seen[page].Load() < int64(steps) {
				return false
			}
		}
		return true
	})
	c.cancel()
	c.ended.Wait()
	slices.Sort(c.late)
	c.Logf("%d pages, %d changes at %v: behind by at most %v (median of the pages %v)", c.pages, steps, every, c.late[len(c.late)-1], c.late[len(c.late)/2])
}

// TestManyPages: every page sees the last change soon, however many pages and changes there are.
func TestManyPages(t *testing.T) {
	c := newCrowd(t, 300, 60)
	c.change(300, 100, 10*time.Millisecond)
	if worst := c.late[len(c.late)-1]; worst > 5*time.Second {
		t.Errorf("a page was behind by %v", worst)
	}
}

// BenchmarkPages measures how far 200 pages fall behind 100 changes a second to 1,000 instances.
func BenchmarkPages(b *testing.B) {
	for b.Loop() {
		c := newCrowd(b, 1000, 200)
		c.change(1000, 1000, 10*time.Millisecond)
		b.ReportMetric(float64(c.late[len(c.late)-1].Milliseconds()), "ms-behind")
	}
}

// BenchmarkFrame is what a change of 25 of 1,000 instances costs, for all pages together.
func BenchmarkFrame(b *testing.B) {
	l := newLive()
	rows := make([]row, 1000)
	for i := range rows {
		rows[i] = row{id: rowID(strconv.Itoa(i)), html: strings.Repeat("x", 500)}
	}
	l.show(frame{rows: rows})
	version := uint64(0)
	for i := 0; b.Loop(); i++ {
		next := slices.Clone(rows)
		for j := range 25 {
			next[(i+j*40)%1000].html = strconv.Itoa(i)
		}
		l.show(frame{rows: next})
		_, version, _ = l.since(version)
	}
}
