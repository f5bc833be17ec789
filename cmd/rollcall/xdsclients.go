// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/xds"
)

// maxClientList is the largest list of clients that is read: 20,000 clients of many names.
const maxClientList = 256 << 20

// xdsClientList is what /xds/clients serves.
type xdsClientList struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Clients    []xdsClient `json:"clients"`
}

// xdsClient is an xds.Client in a document, where no list is null.
type xdsClient struct {
	xds.Client
	Locality locality `json:"locality"`
}

// rawClientList is an xdsClientList as it was received: a newer server may say more of a client.
type rawClientList struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Clients    []json.RawMessage `json:"clients"`
}

// keep removes clients from the list, in both forms.
func (d *rawClientList) keep(list *xdsClientList, wanted func(xdsClient) bool) {
	raw, clients := []json.RawMessage{}, []xdsClient{}
	for i, c := range list.Clients {
		if wanted(c) {
			raw, clients = append(raw, d.Clients[i]), append(clients, c)
		}
	}
	d.Clients, list.Clients = raw, clients
}

func newXDSClientList(clients []xds.Client) xdsClientList {
	list := xdsClientList{APIVersion: apiVersion, Kind: "XDSClientList", Clients: make([]xdsClient, len(clients))}
	for i, c := range clients {
		c.Resources = append([]xds.Subscribed{}, c.Resources...)
		for j, r := range c.Resources {
			c.Resources[j].Names = append([]string{}, r.Names...)
		}
		list.Clients[i] = xdsClient{c, locality(c.Locality)}
	}
	return list
}

func newXDSClients(a *app) *cobra.Command {
	var addr string
	cmd := &cobra.Command{
		Use:   "clients [SERVICE]",
		Short: "List the clients of a rollcall serve",
		Long: "clients lists who is served by one replica of rollcall serve now, what each has asked for\n" +
			"and whether it has accepted what it was sent; with SERVICE, those who asked for that\n" +
			"service. JSON is what /xds/clients at the admin address says: with -o json the versions\n" +
			"of each resource type are there too.",
		Example: "  rollcall xds clients\n  rollcall xds clients my-service\n  rollcall xds clients --admin 10.0.0.7:2381 -o json | jq -r '.clients[].id'",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			service := ""
			if len(args) > 0 {
				if service, err = rollcall.ParseService(args[0]); err != nil {
					return err
				}
			}
			return a.xdsClients(cmd.Context(), addr, service)
		},
	}
	cmd.Flags().StringVar(&addr, "admin", defaultAdminAddr, "the admin address of the rollcall serve")
	return cmd
}

// xdsClients lists the clients of a service, "" for all.
func (a *app) xdsClients(ctx context.Context, addr, service string) error {
	if err := checkAdmin(&addr); err != nil {
		return err
	}
	body, err := a.fetch(ctx, addr, "/xds/clients")
	if err != nil {
		return err
	}
	var list xdsClientList
	var document rawClientList
	if err := errors.Join(json.Unmarshal(body, &list), json.Unmarshal(body, &document)); err != nil || list.Kind != "XDSClientList" {
		return fail(exitOther, "--admin %s: the answer is not that of a rollcall serve", addr)
	}
	if service != "" {
		document.keep(&list, func(c xdsClient) bool { return slices.Contains(servicesOf(c.Resources), service) })
	}
	switch {
	case a.json():
		return a.printJSON(document)
	case len(list.Clients) == 0 && service != "":
		a.say("no clients of service %q at %s", service, addr)
		return nil
	case len(list.Clients) == 0:
		a.say("no clients at %s", addr)
		return nil
	}
	_, err = fmt.Fprint(a.stdout, clientTable(list.Clients, time.Now()))
	return err
}

// checkAdmin checks an admin address, and makes HOST:PORT of the URL that rollcall serve prints.
func checkAdmin(addr *string) error {
	given := *addr
	*addr = strings.TrimSuffix(strings.TrimPrefix(given, "http://"), "/")
	if _, _, err := net.SplitHostPort(*addr); err != nil {
		return fail(exitUsage, "--admin %q: %v; write HOST:PORT", given, err)
	}
	return nil
}

// fetch reads from the admin address of a rollcall serve.
func (a *app) fetch(ctx context.Context, addr, path string) ([]byte, error) {
	asking, cancel := a.deadline(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(asking, http.MethodGet, (&url.URL{Scheme: "http", Host: addr, Path: path}).String(), nil)
	if err != nil {
		return nil, fail(exitUsage, "--admin %s: %v", addr, err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy
	resp, err := client.Do(req)
	var body []byte
	if err == nil {
		defer resp.Body.Close()
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxClientList))
	}
	if cause := context.Cause(ctx); isSignal(cause) {
		return nil, cause
	}
	if err != nil {
		var tried *url.Error
		if errors.As(err, &tried) {
			err = tried.Err
		}
		return nil, fail(exitOther, "cannot ask the rollcall serve at %s: %w; is it running? see --admin", addr, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fail(exitOther, "--admin %s: %s for %s; is that a rollcall serve?", addr, resp.Status, path)
	}
	return body, nil
}

// clientTable lists clients, each on a line.
func clientTable(clients []xdsClient, now time.Time) string {
	rows := [][]string{{"ID", "PEER", "AGE", "USER AGENT", "ZONE", "NAMES", "STATE", "REASON"}}
	for _, c := range clients {
		rows = append(rows, []string{shorten(c.ID, 40), c.Peer, ageText(now.Sub(c.Since)), shorten(c.UserAgent, 30), c.Locality.Zone,
			namesText(c.Resources), stateOf(c.Resources), reasonText(c.Resources, now)})
	}
	return table(rows...)
}

// namesText is what a client has asked for, of whatever type.
func namesText(resources []xds.Subscribed) string {
	var names []string
	for _, r := range resources {
		names = append(names, r.Names...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	more := ""
	if len(names) > 3 {
		names, more = names[:3], fmt.Sprintf(" and %d more", len(names)-3)
	}
	return shorten(strings.Join(names, " "), 60) + more
}

// stateOf is whether a client is refused a name, or else has accepted the last version of each type.
func stateOf(resources []xds.Subscribed) string {
	state := "accepted"
	for _, r := range resources {
		switch {
		case len(r.Refused) > 0:
			return "refused"
		case r.Rejected != nil && r.Rejected.Version == r.Sent && r.Accepted != r.Sent:
			return "rejected"
		case r.Sent == "" || r.Accepted != r.Sent:
			state = "waiting"
		}
	}
	if len(resources) == 0 {
		return "waiting"
	}
	return state
}

// reasonText is why a client is refused a name, or else the last rejection of any type.
func reasonText(resources []xds.Subscribed, now time.Time) string {
	var last *xds.Rejection
	for _, r := range resources {
		if len(r.Refused) > 0 {
			return shorten(oneLine(r.Refused[0].Name+": "+r.Refused[0].Reason), 70)
		}
		if r.Rejected != nil && (last == nil || r.Rejected.Time.After(last.Time)) {
			last = r.Rejected
		}
	}
	if last == nil {
		return ""
	}
	return fmt.Sprintf("%s ago: %s", ageText(now.Sub(last.Time)), shorten(oneLine(last.Message), 60))
}

// ageText is a duration in its largest unit that gives two figures: 59s, 90m, 47h, 12d.
func ageText(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
