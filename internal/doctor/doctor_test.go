// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var all = slices.Concat(etcdChecks, rightsChecks, keyChecks, serverChecks, clientChecks)

// row is an endpoint under a lease of 30 s.
func row(key string, status inventory.Status) *inventory.Instance {
	service, id := rollcall.SplitKey(key)
	return &inventory.Instance{Key: key, Service: service, ID: id, Addr: "10.0.0.1:80", Status: status, Lease: "abc"}
}

func permit([]string) (user string, command []string) { return "bob", []string{"permit", "bob"} }

// healthy returns facts of which no check finds anything: three members, and a service with an endpoint.
func healthy() *Facts {
	f := &Facts{
		Now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Cluster: &cluster.Report{Cluster: "c"}, HTTP: make(map[string]Page),
		Services:      []Service{{"shop", []*inventory.Instance{row("shop/a", inventory.Serving)}}},
		First:         map[string]inventory.TTL{"abc": {Granted: 30, Left: 25}},
		Answers:       map[string]Answer{"10.0.0.1:80": {Connected: true, Answers: true, Health: "SERVING"}},
		CheckConfig:   func(string) error { return nil },
		UnknownFields: func([]byte) []string { return nil },
		Client: Settings{DialTimeout: 2 * time.Second, Getenv: func(string) string { return "" }, Permit: permit,
			Variables: []Variable{{"ETCDCTL_KEY", "ROLLCALL_KEY"}, {"ETCDCTL_WRITE_OUT", "ROLLCALL_OUTPUT"}}},
	}
	for i, name := range []string{"m0", "m1", "m2"} {
		url := fmt.Sprintf("http://10.0.1.%d:2379", i)
		f.Cluster.Members = append(f.Cluster.Members, cluster.Member{ID: name, Led: true, Name: name, Endpoint: url, Version: "3.7.3", LatencySeconds: 0.001,
			DBSize: 1e6, DBInUse: 9e5, DBQuota: 2e9, RaftTerm: 2, ClientURLs: []string{url}})
		f.Cluster.Asked = append(f.Cluster.Asked, cluster.Asked{Endpoint: url, Given: true, Cluster: "c", Member: name})
		f.Client.Endpoints = append(f.Client.Endpoints, url)
		f.HTTP[name] = Page{Uptime: time.Hour, LeaderChanges: 1}
	}
	return f
}

func member(f *Facts) *cluster.Member { return &f.Cluster.Members[1] }

func env(f *Facts, pairs ...string) {
	f.Client.Getenv = func(name string) string {
		for _, pair := range pairs {
			if key, value, _ := strings.Cut(pair, "="); key == name {
				return value
			}
		}
		return ""
	}
}

func add(f *Facts, rows ...*inventory.Instance) *inventory.Instance {
	s := &f.Services[0]
	s.Rows = append(s.Rows, rows...)
	for i, r := range rows {
		if r.Addr == "10.0.0.1:80" {
			r.Addr = fmt.Sprintf("10.0.2.%d:80", i)
		}
	}
	return rows[0]
}

// faults plants the fault of each check. Of each the check finds just that, and no other check anything.
var faults = map[string]func(*Facts){
	"etcd-silent": func(f *Facts) { *member(f) = cluster.Member{ID: "m1", Name: "m1", Error: "connection refused"} },
	"etcd-other-cluster": func(f *Facts) {
		f.Cluster.Silent = []cluster.SilentEndpoint{{Endpoint: "10.0.1.9:2379", Error: "another cluster answers there", Cluster: "d"}}
	},
	"etcd-no-leader": func(f *Facts) {
		for i := range f.Cluster.Members {
			f.Cluster.Members[i].Led = false
		}
	},
	"etcd-leader-changes":  func(f *Facts) { f.HTTP["m1"] = Page{Uptime: time.Hour, LeaderChanges: 4} },
	"etcd-alarm-nospace":   func(f *Facts) { member(f).Alarms, member(f).DBSize = []string{"NOSPACE"}, 2e9 },
	"etcd-alarm-corrupt":   func(f *Facts) { member(f).Alarms = []string{"CORRUPT"} },
	"etcd-quota":           func(f *Facts) { member(f).DBSize, member(f).DBInUse = 16e8, 15e8 },
	"etcd-fragmented":      func(f *Facts) { member(f).DBSize, member(f).DBInUse = 65e6, 32e6 },
	"etcd-lag":             func(f *Facts) { member(f).Lag = 1000 },
	"etcd-slow":            func(f *Facts) { member(f).LatencySeconds = 0.3 },
	"etcd-advisory":        func(f *Facts) { member(f).Version = "3.7.0" },
	"etcd-end-of-life":     func(f *Facts) { setVersion(f, "3.4.45") },
	"etcd-versions-differ": func(f *Facts) { member(f).Version = "3.6.16" },
	"etcd-clock-skew":      func(f *Facts) { f.HTTP["m1"] = Page{Skew: -5 * time.Second} },
	"etcd-loopback-url":    func(f *Facts) { member(f).ClientURLs = []string{"http://127.0.0.1:2379", "http://localhost:2379"} },

	"rights-missing":     func(f *Facts) { f.Denied = []string{"keys"} },
	"rights-root":        func(f *Facts) { f.Access = Access{Enabled: true, User: "root", Roles: []string{"root"}} },
	"rights-off":         func(f *Facts) { f.Access.Users = []string{"bob"} },
	"rights-plaintext":   func(f *Facts) { f.Client.User = "bob" },
	"certificate-client": func(f *Facts) { f.Client.Certificate = &x509.Certificate{NotAfter: f.Now.Add(30 * 24 * time.Hour)} },
	"certificate-server": func(f *Facts) {
		f.Cluster.Asked[0].Certificate = &x509.Certificate{NotAfter: f.Now.Add(4 * 24 * time.Hour)}
		f.Cluster.Asked[1].Certificate = &x509.Certificate{NotAfter: f.Now.Add(31 * 24 * time.Hour)}
	},

	"keys-unknown":        func(f *Facts) { f.Unread = []string{"keys: context deadline exceeded"} },
	"key-undecodable":     func(f *Facts) { add(f, row("shop/b", inventory.Invalid)) },
	"key-foreign":         func(f *Facts) { f.Foreign = []*inventory.Instance{row("other", inventory.Invalid)} },
	"key-without-service": func(f *Facts) { f.Bare = []*inventory.Instance{row("bare", inventory.Serving)} },
	"address-disallowed":  func(f *Facts) { add(f, row("shop/b", inventory.Disallowed)) },
	"address-duplicate":   func(f *Facts) { add(f, row("shop/b", inventory.Serving)).Addr = "10.0.0.1:80" },
	"target-overlap": func(f *Facts) {
		f.Services = append(f.Services, Service{"shop/x", []*inventory.Instance{row("shop/x/a", inventory.Serving)}})
	},
	"id-duplicate": func(f *Facts) { f.Former = map[string]string{"shop/a": "def"} },
	"id-hidden":    func(f *Facts) { f.Asked, f.Services[0].Rows[0].ID = []string{"shop"}, "x/a" },
	"lease-none":   func(f *Facts) { add(f, row("shop/b", inventory.Serving)).Lease = "" },
	"lease-ending": func(f *Facts) {
		f.First["abc"], f.Second = inventory.TTL{Granted: 30, Left: 9}, map[string]inventory.TTL{"abc": {Granted: 30, Left: 7}}
	},
	"lease-short": func(f *Facts) { f.First["abc"], member(f).LatencySeconds = inventory.TTL{Granted: 3, Left: 2}, 0.201 },
	"lease-shared": func(f *Facts) {
		for i := range 49 {
			name := fmt.Sprintf("many-%d", i)
			f.Services = append(f.Services, Service{name, []*inventory.Instance{row(name+"/a", inventory.Serving)}})
		}
	},
	"weight-zero": func(f *Facts) {
		add(f, row("shop/b", inventory.Serving)).FieldErrors = []inventory.FieldError{{Field: "weight"}}
	},
	"metadata-invalid": func(f *Facts) {
		add(f, row("shop/b", inventory.Serving)).FieldErrors = []inventory.FieldError{{Field: "zone"}}
	},
	"config-invalid": func(f *Facts) {
		f.Configs = []*rollcall.ServiceConfig{{Service: "shop"}}
		f.CheckConfig = func(string) error { return errors.New("no") }
	},
	"config-field-unknown": func(f *Facts) {
		f.Configs = []*rollcall.ServiceConfig{{Service: "shop"}}
		f.UnknownFields = func([]byte) []string { return []string{`"timout"; did you mean timeout?`} }
	},
	"config-orphan":    func(f *Facts) { f.Configs = []*rollcall.ServiceConfig{{Service: "sho"}} },
	"service-empty":    func(f *Facts) { f.Services = append(f.Services, Service{Name: "gone"}) },
	"service-draining": func(f *Facts) { f.Services[0].Rows[0].Status = inventory.Draining },
	"zone-draining":    func(f *Facts) { add(f, row("shop/b", inventory.Draining)).Zone = "eu-1" },

	"server-silent":  func(f *Facts) { f.Answers["10.0.0.1:80"] = Answer{Error: "refused"} },
	"server-no-grpc": func(f *Facts) { f.Answers["10.0.0.1:80"] = Answer{Connected: true, Error: "EOF"} },
	"server-unhealthy": func(f *Facts) {
		f.Answers["10.0.0.1:80"] = Answer{Connected: true, Answers: true, Health: "NOT_SERVING"}
	},

	"client-proxy":             func(f *Facts) { env(f, "https_proxy=proxy:3128", "no_proxy=10.0.1.0/24") },
	"client-grpc-variable":     func(f *Facts) { env(f, "GRPC_ENFORCE_ALPN_ENABLED=false") },
	"client-variable-ignored":  func(f *Facts) { env(f, "ETCDCTL_WRITE_OUT=simple", "ROLLCALL_OUTPUT=json", "ETCDCTL_HEX=true") },
	"client-timeout-short":     func(f *Facts) { f.Client.DialTimeout = 499 * time.Millisecond },
	"client-endpoint-repeated": func(f *Facts) { f.Cluster.Asked[2].Member = "m1" },
	"client-one-endpoint":      func(f *Facts) { f.Client.Endpoints = f.Client.Endpoints[:1] },
}

func setVersion(f *Facts, version string) {
	for i := range f.Cluster.Members {
		f.Cluster.Members[i].Version = version
	}
}

func ids(findings []Finding) []string {
	found := []string{}
	for _, f := range findings {
		found = append(found, f.ID)
	}
	return found
}

func TestEachFaultAlone(t *testing.T) {
	if found := Diagnose(healthy()); len(found) > 0 {
		t.Errorf("of health found %+v", found)
	}
	if len(faults) != len(all) {
		t.Errorf("%d faults for %d checks", len(faults), len(all))
	}
	for _, c := range all {
		plant := faults[c.id]
		if plant == nil {
			t.Errorf("no fault tests %s", c.id)
			continue
		}
		f := healthy()
		plant(f)
		found := Diagnose(f)
		if diff := cmp.Diff([]string{c.id}, ids(found)); diff != "" {
			t.Errorf("%s: found differs (-want +got):\n%s%+v", c.id, diff, found)
			continue
		}
		if got := found[0]; got.What == "" || got.Why == "" || got.Fix == "" || got.Severity == "" {
			t.Errorf("%s: a text is missing: %+v", c.id, got)
		}
	}
}

// Only etcd can refuse a user; that the system refuses a connection in the same words is a fault.
func TestOthersRefusals(t *testing.T) {
	err := status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial unix /x: connect: permission denied"`)
	f := healthy()
	f.Cluster.Silent = []cluster.SilentEndpoint{{Endpoint: "unix:///x", Error: err.Error()}}
	f.Cluster.Members[1].Error = err.Error()
	if found := ids(Diagnose(f)); !slices.Equal(found, []string{"etcd-silent", "etcd-silent"}) {
		t.Errorf("found %q", found)
	}
	f.Cluster.Members[0].Refused, f.Cluster.Err = true, rpctypes.ErrPermissionDenied
	if found := Diagnose(f); strings.Contains(found[0].Why, "No member") {
		t.Errorf("of a member that refuses, found %+v", found[0])
	}
	f.Cluster.Members[0].Refused, f.Cluster.Err = false, nil
	f.Cluster.Silent, f.Cluster.Members[1].Refused = nil, true
	if found := ids(Diagnose(f)); len(found) > 0 {
		t.Errorf("of a user without rights found %q", found)
	}
}

// Only keys can be granted by a role.
func TestMissingRights(t *testing.T) {
	for _, row := range []struct {
		name, user string
		err        error
		keys       bool
		commands   [][]string
		fix        string
	}{
		{"keys", "bob", nil, true, [][]string{{"permit"}}, "Grant the user"},
		{"what root alone may ask", "bob", rpctypes.ErrPermissionDenied, false, nil, "No role but root"},
		{"nobody", "", rpctypes.ErrUserEmpty, false, nil, "with --user"},
		{"a wrong password", "bob", rpctypes.ErrAuthFailed, false, nil, "--password"},
	} {
		f := healthy()
		f.Denied, f.DeniedKeys, f.Cluster.Err = []string{"something"}, row.keys, row.err
		f.Client.Permit = func([]string) (string, []string) { return row.user, []string{"permit"} }
		found := Diagnose(f)
		if len(found) != 1 || !cmp.Equal(found[0].Commands, row.commands) || !strings.Contains(found[0].Fix, row.fix) {
			t.Errorf("%s: found %+v", row.name, found)
		}
	}
}

// One fault is told once, and what is said of it depends on what else is known.
func TestWhatIsSaid(t *testing.T) {
	for name, r := range map[string]struct {
		change func(*Facts)
		want   string // severity and id
		says   string
	}{
		"silent, without a lease": {func(f *Facts) {
			r := row("shop/b", inventory.Serving)
			f.Answers[add(f, r).Addr], r.Lease = Answer{Error: "connection refused"}, ""
		}, "error server-silent", "rollcall rm shop b"},
		"it hangs": {func(f *Facts) {
			f.Answers["10.0.0.1:80"] = Answer{Connected: true, Error: "context deadline exceeded"}
		}, "error server-no-grpc", "nothing answers"},
		"it speaks something else": {func(f *Facts) {
			f.Answers["10.0.0.1:80"] = Answer{Connected: true, Error: "EOF"}
		}, "warning server-no-grpc", "wants TLS"},
		"the newest of an address": {func(f *Facts) {
			r := add(f, row("shop/b", inventory.Serving))
			r.Addr, r.CreateRevision = "10.0.0.1:80", 1000
		}, "warning address-duplicate", `"shop/b" (lease abc, the newest)`},
		"no member answers": {func(f *Facts) {
			f.Cluster = &cluster.Report{Err: errors.New("refused"), Silent: []cluster.SilentEndpoint{{Endpoint: "a:1", Error: "refused"}}}
		}, "error etcd-silent", "No member answers from here"},
		"many keys": {func(f *Facts) {
			add(f, row("shop/b", inventory.Serving), row("shop/c", inventory.Serving), row("shop/d", inventory.Serving), row("shop/e", inventory.Serving))
			for _, r := range f.Services[0].Rows[1:] {
				r.FieldErrors = []inventory.FieldError{{Field: "weight"}}
			}
		}, "warning weight-zero", "rollcall drain shop e"},
		"many keys without a service": {func(f *Facts) {
			for _, key := range []string{"b", "c", "d", "e"} {
				f.Bare = append(f.Bare, row(key, inventory.Serving))
			}
		}, "warning key-without-service", "etcdctl del e"},
		"a zone that drains": {func(f *Facts) { add(f, row("shop/b", inventory.Draining)).Zone = "eu 1" },
			"note zone-draining", "rollcall undrain --selector zone=eu 1 --selector status=draining shop"},
		"zones that all drain": {func(f *Facts) {
			add(f, row("shop/b", inventory.Draining)).Zone = "eu-1"
			f.Services[0].Rows[0].Status = inventory.Draining
		}, "warning service-draining", "rollcall undrain --selector status=draining shop"},
		"no lease, and alive": {func(f *Facts) { add(f, row("shop/b", inventory.Serving)).Lease = "" }, "warning lease-none", "rollcall get shop"},
	} {
		f := healthy()
		r.change(f)
		found := Diagnose(f)
		if len(found) != 1 || string(found[0].Severity)+" "+found[0].ID != r.want {
			t.Errorf("%s: found %+v, want %s", name, found, r.want)
			continue
		}
		text := found[0].What + found[0].Why + found[0].Fix
		for _, command := range found[0].Commands {
			text += strings.Join(command, " ")
		}
		if !strings.Contains(text, r.says) || found[0].ID == "lease-none" && strings.Contains(text, "rollcall rm") {
			t.Errorf("%s: found %+v, which does not say %q", name, found[0], r.says)
		}
	}
}

// What is almost a fault is none.
func TestNoFaults(t *testing.T) {
	for name, change := range map[string]func(*Facts){
		"a lag that is made up": func(f *Facts) { member(f).Lag = 5000; f.Later = healthy().Cluster },
		"a slow moment":         func(f *Facts) { member(f).LatencySeconds = 2; f.Later = healthy().Cluster },
		"a lease that is renewed late": func(f *Facts) {
			f.First["abc"] = inventory.TTL{Granted: 30, Left: 9}
			f.Second = map[string]inventory.TTL{"abc": {Granted: 30, Left: 30}}
		},
		"a lease that is half over":   func(f *Facts) { f.First["abc"] = inventory.TTL{Granted: 30, Left: 10} },
		"elections long ago":          func(f *Facts) { f.HTTP["m1"] = Page{Uptime: 100 * time.Hour, LeaderChanges: 100} },
		"no users, no authentication": func(f *Facts) { f.Access = Access{} },
		"silent, but draining":        func(f *Facts) { r := add(f, row("shop/b", inventory.Draining)); f.Answers[r.Addr] = Answer{} },
		"all on this host": func(f *Facts) {
			f.Client.Endpoints = []string{"localhost:1", "127.0.0.1:2"}
			member(f).ClientURLs = []string{"http://127.0.0.1:2"}
		},
		"a proxy that is not for these": func(f *Facts) { env(f, "HTTPS_PROXY=proxy:3128", "NO_PROXY=10.0.0.0/8") },
		"etcdctl has the same":          func(f *Facts) { env(f, "ETCDCTL_KEY=a", "ROLLCALL_KEY=a", "ETCDCTL_WRITE_OUT=json") },
		"a password over TLS": func(f *Facts) {
			f.Client.User = "bob"
			for i := range f.Cluster.Asked {
				f.Cluster.Asked[i].Certificate = &x509.Certificate{NotAfter: f.Now.Add(1e6 * time.Hour)}
			}
		},
		"a config of an outer name": func(f *Facts) {
			f.Services[0].Rows[0].Key = "shop/x/a"
			f.Configs = []*rollcall.ServiceConfig{{Service: "shop/x"}, {Service: "shop"}}
		},
		"a zone that half drains": func(f *Facts) {
			add(f, row("shop/b", inventory.Draining)).Zone = "eu-1"
			add(f, row("shop/c", inventory.Serving)).Zone = "eu-1"
			f.Services[0].Rows[2].Addr = "10.0.2.9:80"
		},
		"health unknown":       func(f *Facts) { f.Answers["10.0.0.1:80"] = Answer{Connected: true, Answers: true} },
		"a version of its own": func(f *Facts) { setVersion(f, "main") },
	} {
		f := healthy()
		change(f)
		if found := Diagnose(f); len(found) > 0 {
			t.Errorf("%s: found %+v", name, found)
		}
	}
}

func TestAdvisories(t *testing.T) {
	for text, want := range map[string][]string{
		"3.5.2":         {"etcd-io/etcd#13766", "etcd-io/etcd#14733", "etcd-io/etcd#15247"},
		"3.5.3":         {"!etcd-io/etcd#13766", "!etcd-io/etcd#14648", "etcd-io/etcd#14733"},
		"3.5.5":         {"etcd-io/etcd#14648"},
		"3.4.19":        {"!etcd-io/etcd#14648", "CVE-2021-28235"},
		"3.4.21":        {"etcd-io/etcd#14648"},
		"3.6.13-rc.1+x": {"GHSA-xg4h-6gfc-h4m8", "!GHSA-3wh4-j44w-pg92"},
		"3.7.0":         {"GHSA-xg4h-6gfc-h4m8", "!GHSA-3wh4-j44w-pg92"},
		"3.7.1":         {},
		"3.5.33":        {},
		"3.8.0":         {},
	} {
		v, ok := parseVersion(text)
		if !ok {
			t.Fatalf("%s is no version", text)
		}
		affected := make(map[string]bool)
		for _, a := range advisories {
			if _, is := a.affects(v); is {
				affected[a.id] = true
			}
		}
		if len(want) == 0 && len(affected) > 0 {
			t.Errorf("%s has %v", text, slices.Collect(maps.Keys(affected)))
		}
		for _, id := range want {
			if id, not := strings.CutPrefix(id, "!"); affected[id] == not {
				t.Errorf("%s has %s: %v, want %v", text, id, affected[id], !not)
			}
		}
	}
	for _, a := range advisories {
		for _, text := range strings.Fields(a.fixed + " " + a.from) {
			if _, ok := parseVersion(text); !ok {
				t.Errorf("%s: %q is no version", a.id, text)
			}
		}
	}
	if _, err := time.Parse(time.DateOnly, AdvisoriesAsOf); err != nil {
		t.Error(err)
	}
	f := healthy()
	setVersion(f, "3.5.2")
	if found := Diagnose(f); len(found) != 1 || found[0].Severity != Error || !strings.Contains(found[0].Fix, "3.5.33") {
		t.Errorf("of 3.5.2 found %+v", found)
	}
}

// docs/doctor.md explains each check, with its severity, and no other; so do its advisories.
func TestChecksAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, match := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (error|warning|note)").FindAllStringSubmatch(string(text), -1) {
		if documented[match[1]] != "" {
			t.Errorf("docs/doctor.md has %s twice", match[1])
		}
		documented[match[1]] = match[2]
	}
	for _, c := range all {
		if got := documented[c.id]; got != string(c.severity) {
			t.Errorf("docs/doctor.md has %s as %q, want %q", c.id, got, c.severity)
		}
		delete(documented, c.id)
	}
	for id := range documented {
		t.Errorf("docs/doctor.md has %s, which no check finds", id)
	}
	for _, a := range advisories {
		if !strings.Contains(string(text), "| "+a.id+" |") {
			t.Errorf("docs/doctor.md lacks %s", a.id)
		}
	}
	if !strings.Contains(string(text), AdvisoriesAsOf) {
		t.Errorf("docs/doctor.md does not say that the table is of %s", AdvisoriesAsOf)
	}
}
