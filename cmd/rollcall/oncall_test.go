// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// shown is what the answers to a question of docs/operate.md must contain.
type shown struct{ command, page, metric []string }

var answers = map[string]shown{
	"Who is registered, and since when?": {
		command: []string{"AGE", " blue ", " 2d2h "},
		page:    []string{`<th scope="row">blue</th>`, ">2d2h</td>"},
		metric:  []string{`rollcall_service_instances{service="my-service",status="serving"} 2`},
	},
	"Is somebody drained, invalid or disallowed?": {
		command: []string{"SERVICE INSTANCES SERVING DRAINING INVALID ZONES", "my-service 4 2 1 1 eu-1"},
		page:    []string{">my-service</a>"},
		metric: []string{`rollcall_service_instances{service="my-service",status="draining"} 1`,
			`rollcall_service_instances{service="my-service",status="invalid"} 1`},
	},
	"Who vanished, when, and did it leave or die?": {
		command: []string{" expired dead ", " left left ", " deleted gone "},
		page:    []string{"expired", "it was draining", "no lease ended"},
		metric:  []string{"rollcall_service_instances{"},
	},
	"What became of this one?": {
		command: []string{" came dead ", " expired dead "},
		page:    []string{"dead", "expired"},
	},
	"Which clients use a service?": {
		command: []string{"the node", "accepted"},
		page:    []string{"the node"},
		metric:  []string{`rollcall_service_subscribers{service="my-service"}`},
	},
	"Is etcd healthy?": {
		command: []string{"ok:", "1 of 1 member"},
		page:    []string{`<span class="status ok">ok</span>`},
		metric:  []string{"rollcall_etcd_outage_seconds 0"},
	},
	"What happens if I drain this one?": {
		command: []string{" blue ", "75.0%"},
		page:    []string{"75.0 % of the calls would move"},
	},
	"What happens if I drain a zone?": {
		command: []string{" blue ", "75.0%"},
	},
	"What happens if I give it another weight?": {
		command: []string{"25.0%", " 3 -> 1 "},
		page:    []string{"25.0 % of the calls would move", "3 &rarr; 1"},
	},
	"Does a listed endpoint answer at all?": {
		command: []string{" blue ", "no health service", "connection refused", "1 of 3 endpoints answer"},
	},
	"How many watches, relists and lost leases in the last hour?": {
		metric: []string{`rollcall_watch_restarts_total{cause="compacted"} 0`, `rollcall_lists_total{cause="start"}`},
	},
	"Is what clients see out of date?": {
		command: []string{"blue"},
		metric:  []string{`rollcall_service_staleness_seconds{service="my-service"} 0`},
	},
	"What is wrong, or will be?": {
		command: []string{"key-undecodable", "server-silent"},
	},
	"Why do calls fail with \"no endpoints\"?": {
		command: []string{"LEFT OUT", "invalid"},
		page:    []string{"broken", "invalid"},
		metric:  []string{`rollcall_services{state="current"}`},
	},
}

// TestQuestionsOnCall runs each command of the table of questions in docs/operate.md, and opens
// each page, on a service with everything that the questions are about.
func TestQuestionsOnCall(t *testing.T) {
	server := freshEtcd(t)
	endpoint, client := server.Endpoint(), etcdClient(t, server.Endpoint())
	fillOnCall(t, endpoint, client)
	s := beginServe(t, endpoint, "--console", "127.0.0.1:0", "--console-writes")
	awaitReady(t, s.admin)
	wantCall(t, dialXDS(t, "xds:///my-service", "--server", s.xds[0], "--node-id", "the node"), "blue")
	console := regexp.MustCompile(`console at http://([^;]+);`).FindStringSubmatch(s.stderr.String())[1]
	eventually(t, "the client has accepted what it was sent", func() bool {
		return strings.Contains(must(t, endpoint, "xds", "clients", "--admin", s.admin).stdout, "accepted")
	})
	_, metrics := get(t, s.admin, "/metrics")
	documented, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}

	rows := questionsOnCall(t)
	if len(rows) != len(answers) {
		t.Errorf("%d questions are documented, %d answers are known", len(rows), len(answers))
	}
	for _, row := range rows {
		question, want := row[0], answers[row[0]]
		for _, command := range backquoted(row[1], "rollcall ") {
			if command == "rollcall top" {
				continue // it needs a terminal: see TestTop
			}
			text := runOnCall(t, endpoint, s.admin, strings.Fields(command)[1:])
			wantIn(t, question+" "+command, text, want.command...)
		}
		for _, page := range backquoted(row[2], "/") {
			if len(want.page) == 0 {
				t.Errorf("%s: no answer of %s is known", question, page)
			}
			for i := 0; ; i++ { // what a page follows it does not know at once
				code, body := get(t, console, page)
				if code == http.StatusOK && containsAll(body, want.page) {
					break
				}
				if i == 50 {
					wantIn(t, question+" "+page+" "+strconv.Itoa(code), body, want.page...)
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
		for _, metric := range regexp.MustCompile(`rollcall[._][a-z_.]*[a-z]`).FindAllString(row[3], -1) {
			wantIn(t, question, string(documented), "| `"+metric+"` ")
		}
		wantIn(t, question+" /metrics", metrics, want.metric...)
	}
}

// fillOnCall registers two endpoints of which one answers, one that is draining, one that is
// invalid, and has others leave in each way.
func fillOnCall(t *testing.T, endpoint string, client *clientv3.Client) {
	t.Helper()
	started := time.Now().Add(-50*time.Hour - 20*time.Minute).UTC().Format(time.RFC3339)
	must(t, endpoint, "add", "my-service", startNamed(t, "blue"), "--id", "blue", "--metadata", `{"weight":3,"zone":"eu-1","started":"`+started+`"}`)
	must(t, endpoint, "add", "my-service", "127.0.0.1:1", "--id", "green")
	must(t, endpoint, "add", "my-service", "127.0.0.1:2", "--id", "drained")
	must(t, endpoint, "drain", "my-service", "drained")
	put1(t, client, "my-service/broken", "garbage")
	for _, id := range []string{"dead", "left", "gone"} {
		must(t, endpoint, "add", "my-service", "127.0.0.1:3", "--id", id)
	}
	lease, err := client.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	put1(t, client, "my-service/dead", `{"Addr":"127.0.0.1:3"}`, clientv3.WithLease(lease.ID))
	if _, err := client.Revoke(t.Context(), lease.ID); err != nil {
		t.Fatal(err)
	}
	must(t, endpoint, "drain", "my-service", "left")
	must(t, endpoint, "rm", "my-service", "left", "gone")
}

// runOnCall returns what a command prints, with single spaces between columns.
func runOnCall(t *testing.T, endpoint, admin string, args []string) string {
	t.Helper()
	if args[0] == "xds" || args[0] == "history" {
		args = append(args, "--admin", admin)
	}
	var r result
	if args[0] == "watch" {
		w := begin(t, []string{"ROLLCALL_ENDPOINTS=" + endpoint}, args...)
		eventually(t, "it shows endpoints", func() bool { return strings.Contains(w.stdout.String(), "green") })
		w.interrupt()
		r = result{w.end(t), w.stdout.String(), w.stderr.String()}
	} else {
		r = rollcallAt(t, endpoint, args...)
	}
	lines := strings.Split(r.stdout+r.stderr, "\n")
	for i, line := range lines {
		lines[i] = " " + strings.Join(strings.Fields(line), " ") + " "
	}
	return strings.Join(lines, "\n")
}

// questionsOnCall returns the table of docs/operate.md: question, commands, pages and metrics.
func questionsOnCall(t *testing.T) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| question | command | page | metric |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, line := range strings.Split(table, "\n")[1:] {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// backquoted returns what a text has between backquotes that begins so.
func backquoted(text, prefix string) (found []string) {
	for _, match := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(text, -1) {
		if strings.HasPrefix(match[1], prefix) {
			found = append(found, match[1])
		}
	}
	return found
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}
