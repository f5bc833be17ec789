// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

// freeAddr returns an address on loopback where nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

// get reads a page, and returns 0 with the reason where it cannot.
func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// eventually waits for a condition, and tells what there is instead.
func eventually(t *testing.T, what string, met func() (ok bool, instead any)) {
	t.Helper()
	for until := time.Now().Add(lab.WaitMost / 2); ; time.Sleep(50 * time.Millisecond) {
		ok, instead := met()
		if ok {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("not within %v: %s; there is %v", lab.WaitMost/2, what, instead)
		}
	}
}

// run starts a program, and ends it with the test.
func run(t *testing.T, log io.Writer, path string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	return cmd
}

// kill ends a program at once.
func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// prometheus is a Prometheus that runs with the configuration of docs/monitoring.md and the alerts of
// deploy, whose minutes are short.
type prometheus struct {
	t   *testing.T
	url string
}

// minute is how long a minute of the alerts takes. They are evaluated twice in it.
const minute = 500 * time.Millisecond

// sooner shortens the times that alerts wait for, and those that rates are of. None waits for less than
// two seconds: on a busy machine some scrapes fail, and a client takes up to a second to connect again.
func sooner(rules string) string {
	shorten := func(least time.Duration) func(string) string {
		return func(minutes string) string {
			n, _ := strconv.Atoi(strings.Trim(minutes, ": [m]")) // digits
			return fmt.Sprintf("%dms", max(time.Duration(n)*minute, least).Milliseconds())
		}
	}
	waits, ranges := shorten(2*time.Second), shorten(0)
	rules = regexp.MustCompile(`\bfor: \d+m`).ReplaceAllStringFunc(rules, func(s string) string { return "for: " + waits(strings.TrimPrefix(s, "for")) })
	return regexp.MustCompile(`\[\d+m\]`).ReplaceAllStringFunc(rules, func(s string) string { return "[" + ranges(s) + "]" })
}

func startPrometheus(t *testing.T, admin string) *prometheus {
	t.Helper()
	path, dir, addr := installed(t, "prometheus"), t.TempDir(), freeAddr(t)
	rules := sooner(read(t, "deploy/alerts.yaml"))
	config := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(read(t, "docs/monitoring.md"))[1]
	config = "global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}\n" +
		strings.NewReplacer("127.0.0.1:2381", admin, "refresh_interval: 30s", "refresh_interval: 1s").Replace(config)
	for name, text := range map[string]string{"alerts.yaml": rules, "prometheus.yaml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("Prometheus: %s", text)
		}
		log.Close()
	})
	run(t, log, path, "--config.file="+filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	p := &prometheus{t, "http://" + addr}
	eventually(t, "Prometheus is ready", func() (bool, any) {
		code, body := get(t, p.url+"/-/ready")
		return code == http.StatusOK, body
	})
	return p
}

// api reads from the API.
func (p *prometheus) api(path string, data any) {
	p.t.Helper()
	code, body := get(p.t, p.url+"/api/v1/"+path)
	answer := struct{ Data any }{data}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusOK {
		p.t.Fatalf("%s: %d %s, %v", path, code, body, err)
	}
}

// targets returns the addresses of the targets that are up, with their jobs and zones, and the others
// with the last error.
func (p *prometheus) targets() map[string]string {
	p.t.Helper()
	var data struct {
		ActiveTargets []struct {
			Labels            map[string]string
			Health, LastError string
		}
	}
	p.api("targets?state=active", &data)
	found := make(map[string]string)
	for _, target := range data.ActiveTargets {
		text := strings.TrimSpace(target.Labels["job"] + " " + target.Labels["zone"])
		if target.Health != "up" {
			text = target.Health + " " + target.LastError
		}
		found[target.Labels["instance"]] = text
	}
	return found
}

// alerts returns the names of alerts in a state.
func (p *prometheus) alerts(state string) map[string]bool {
	p.t.Helper()
	var data struct {
		Alerts []struct {
			Labels map[string]string
			State  string
		}
	}
	p.api("alerts", &data)
	names := make(map[string]bool)
	for _, a := range data.Alerts {
		if a.State == state {
			names[a.Labels["alertname"]] = true
		}
	}
	return names
}

// wantFiring waits until alerts fire, and a while longer, in which no other fires but may, if it is not "".
func (p *prometheus) wantFiring(may string, names ...string) {
	p.t.Helper()
	want, ever := make(map[string]bool), make(map[string]bool)
	for _, name := range names {
		want[name] = true
	}
	watch := func() {
		maps.Copy(ever, p.alerts("firing"))
		delete(ever, may)
		for name := range ever {
			if !want[name] {
				p.t.Fatalf("%s fires; want %v alone", name, names)
			}
		}
	}
	eventually(p.t, fmt.Sprintf("%v fire", names), func() (bool, any) {
		watch()
		return cmp.Equal(want, ever), slices.Collect(maps.Keys(ever))
	})
	for until := time.Now().Add(quiet); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		watch()
	}
}

// quiet is how long nothing else must happen, after the time that the expected alert has waited.
const quiet = 1500 * time.Millisecond

// wantQuiet waits until no alert fires or is about to.
func (p *prometheus) wantQuiet() {
	p.t.Helper()
	eventually(p.t, "no alert", func() (bool, any) {
		firing, pending := p.alerts("firing"), p.alerts("pending")
		return len(firing)+len(pending) == 0, []any{firing, pending}
	})
}
