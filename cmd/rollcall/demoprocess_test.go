// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemoProcess: demo keeps its promises, beside etcd's own package, which loses its registrations
// with a lease that it cannot renew; its cluster can be looked at until Ctrl-C, and is gone then.
func TestDemoProcess(t *testing.T) {
	p := launch(t, "", "demo", "--compare", "--keep", "-o", "json")
	var report struct {
		Kind  string
		OK    bool
		Steps []outcome
	}
	if err := json.NewDecoder(p.stdout).Decode(&report); err != nil {
		t.Fatalf("%v; stderr %q", err, p.stderr.String())
	}
	if report.Kind != "DemoReport" || !report.OK || len(report.Steps) != len(demoSteps) {
		t.Errorf("got %+v; stderr %q", report, p.stderr.String())
	}
	for _, step := range report.Steps {
		if !step.Kept || step.EtcdPackage == nil || step.EtcdPackage.Error != "" || len(step.EtcdPackage.Figures) == 0 {
			t.Errorf("%s: %+v, etcd's package %+v", step.Name, step, step.EtcdPackage)
		}
	}
	outage := report.Steps[len(report.Steps)-1]
	if outage.EtcdPackage.Kept || outage.EtcdPackage.text("still registered") != "0" {
		t.Errorf("with etcd's own package registrations have outlived their lease: %+v", outage.EtcdPackage)
	}
	eventually(t, "it says how to look", func() bool { return strings.Contains(p.stderr.String(), "rollcall watch") })
	endpoint := regexp.MustCompile(`export ROLLCALL_ENDPOINTS=(\S+)`).FindStringSubmatch(p.stderr.String())
	if endpoint == nil {
		t.Fatalf("no endpoint in %q", p.stderr.String())
	}
	page := regexp.MustCompile(`The page is at (\S+);`).FindStringSubmatch(p.stderr.String())
	if page == nil {
		t.Fatalf("no page in %q", p.stderr.String())
	}
	resp, err := http.Get(page[1] + "/service?name=" + demoService)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	wantIn(t, "the page", string(shown), "greeter-3", "greeter-5")
	wantIn(t, "stdout of get", must(t, endpoint[1], "get", demoService).stdout, "greeter-3", "greeter-4", "greeter-5")
	time.Sleep(demoTTL)
	wantIn(t, "stdout of get", must(t, endpoint[1], "get", demoService).stdout, "greeter-3")
	p.signal(t, syscall.SIGINT)
	if code, rest := p.end(t); code != 0 || rest != "" {
		t.Errorf("exit %d with %q on stdout; stderr %q", code, rest, p.stderr.String())
	}
	if conn, err := net.DialTimeout("tcp", endpoint[1], time.Second); err == nil {
		conn.Close()
		t.Error("etcd was left behind")
	}
}
