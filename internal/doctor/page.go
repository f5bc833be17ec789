// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/rollcall-grpc/rollcall/internal/cluster"
)

// maxPage bounds the metrics that are read of a member.
const maxPage = 8 << 20

// pages reads the metrics of the members that answer, which they serve at their client URLs unless told not to. Any
// answer has the time, too.
func (g *gathering) pages(ctx context.Context) {
	transport := transportOf(g.opts.Credentials)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: g.opts.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	members := g.answering()
	found, errs := make([]Page, len(members)), make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { found[i], errs[i] = readPage(ctx, client, "http://"+cluster.HostOf(m.Endpoint)+"/metrics") })
	}
	wg.Wait()
	g.HTTP = make(map[string]Page, len(members))
	for i, m := range members {
		if g.HTTP[m.ID] = found[i]; errs[i] != nil {
			g.miss(fmt.Sprintf("metrics of member %q", m.Label()), errs[i])
		}
	}
}

// transportOf dials as gRPC does. What is sent over TLS is HTTP/2, since that is all that gRPC's credentials
// offer; the transport knows nothing of the TLS, so that its URLs are http.
func transportOf(creds credentials.TransportCredentials) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(creds == nil)
	protocols.SetUnencryptedHTTP2(creds != nil)
	return &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil || creds == nil {
			return conn, err
		}
		secured, _, err := creds.ClientHandshake(ctx, addr, conn)
		if err != nil {
			conn.Close()
			return nil, err
		}
		return secured, nil
	}}
}

// readPage returns what a page tells; where that is no metrics, the time alone, and an error.
func readPage(ctx context.Context, client *http.Client, url string) (Page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Page{}, err
	}
	begun := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return Page{}, err
	}
	defer resp.Body.Close()
	now := begun.Add(time.Since(begun) / 2)
	page := Page{}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		page.Skew = date.Add(time.Second / 2).Sub(now) // Date has no fraction
	}
	if resp.StatusCode != http.StatusOK {
		return page, fmt.Errorf("it answers %s", resp.Status)
	}
	page.read(resp.Body, now)
	return page, nil
}

// read takes the metrics that are needed, in Prometheus' text format. What is missing stays 0.
func (p *Page) read(text io.Reader, now time.Time) {
	lines := bufio.NewScanner(io.LimitReader(text, maxPage))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch name {
		case "etcd_server_leader_changes_seen_total":
			p.LeaderChanges = number
		case "etcd_server_quota_backend_bytes":
			p.Quota = int64(number)
		case "process_start_time_seconds":
			p.Uptime = now.Add(p.Skew).Sub(time.UnixMilli(int64(number * 1000)))
		}
	}
}
