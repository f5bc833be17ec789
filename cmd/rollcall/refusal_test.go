// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// etcdWithUsers is an etcd whose users have no rights yet, but for root. It has the service shop
// with the endpoints a, under a lease, and b, and its config.
func etcdWithUsers(t *testing.T, users ...string) (endpoint string) {
	t.Helper()
	endpoint = freshEtcd(t).Endpoint()
	client := etcdClient(t, endpoint)
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lease, err := client.Grant(t.Context(), 600)
	check(nil, err)
	put1(t, client, "shop/a", `{"Addr":"10.0.0.1:80"}`, clientv3.WithLease(lease.ID))
	put1(t, client, "shop/b", `{"Addr":"10.0.0.9:80"}`)
	put1(t, client, "_grpc_config/shop", `{"loadBalancingConfig":[{"round_robin":{}}]}`)
	check(client.RoleAdd(t.Context(), "root"))
	check(client.UserAdd(t.Context(), "root", "secret"))
	check(client.UserGrantRole(t.Context(), "root", "root"))
	for _, user := range users {
		check(client.UserAdd(t.Context(), user, "pw"))
	}
	check(client.AuthEnable(t.Context()))
	return endpoint
}

// rootClient is a client of an etcd with users.
func rootClient(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	cfg := rollcall.ClientConfig(endpoint)
	cfg.Username, cfg.Password = "root", "secret"
	client, err := rollcall.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

var grantCommand = regexp.MustCompile(`rollcall (roles [^\n]*--apply) --user root`)

// TestRefusals: who has no rights is refused each command, with the keys and the command that grants
// the role. Once root has run that, the command works.
func TestRefusals(t *testing.T) {
	for _, row := range []struct{ args, keys, grant string }{
		{"ls", `read all keys from "\x00" on`, "roles viewer --grant-to USER"},
		{"ls shop/", `read keys "shop/" to "shop0"`, "roles viewer --prefix shop/ --grant-to USER"},
		{"ls shop/a", `read keys "shop/a" to "shop/b"`, "roles viewer --prefix shop/ --grant-to USER"},
		{"get shop", `read keys "shop/" to "shop0"`, "roles viewer shop --grant-to USER"},
		{"history shop", `read keys "shop/" to "shop0"`, "roles viewer shop --grant-to USER"},
		{"resolve shop", `read keys "shop/" to "shop0"`, "roles resolver shop --grant-to USER"},
		{"config get shop", `read key "_grpc_config/shop"`, "roles viewer shop --grant-to USER"},
		{"add shop 10.0.0.2:80", `write key "shop/10.0.0.2:80"`, "roles operator shop --grant-to USER"},
		{"add shop 10.0.0.3:80 --ttl 60s", `write key "shop/10.0.0.3:80"`, "roles operator shop --grant-to USER"},
		{"drain shop a --force", `read keys "shop/" to "shop0"`, "roles operator shop --grant-to USER"},
		{"undrain shop a", `read keys "shop/" to "shop0"`, "roles operator shop --grant-to USER"},
		{"weight shop a 3", `read keys "shop/" to "shop0"`, "roles operator shop --grant-to USER"},
		{"config set shop testdata/input/round_robin.json", `"_grpc_config/shop"`, "roles operator shop --grant-to USER"},
		{"register shop --addr 10.0.0.4:80 -- sleep 1", `key "shop/10.0.0.4:80"`, "roles registrar shop --grant-to USER"},
		{"rm shop a", `read keys "shop/" to "shop0"`, "roles operator shop --grant-to USER"},
	} {
		t.Run(row.args, func(t *testing.T) {
			t.Parallel()
			endpoint := etcdWithUsers(t, "bob")
			command := asUser(row.args)
			r := rollcallAt(t, endpoint, command...)
			if r.code != exitNotPermitted || strings.Count(r.stderr, "\n") != 1 {
				t.Fatalf("exit %d, stderr %q", r.code, r.stderr)
			}
			wantIn(t, "stderr", r.stderr, `as user "bob"`, row.keys, strings.ReplaceAll(row.grant, "USER", "bob"))
			grant := grantCommand.FindStringSubmatch(r.stderr)
			if grant == nil {
				t.Fatalf("stderr %q, want a command that grants", r.stderr)
			}
			must(t, endpoint, append(strings.Fields(grant[1]), "--user", "root:secret")...)
			must(t, endpoint, command...)
		})
	}
}

// TestRefusalOfPrefixWithoutSlash: the narrow role is named first, and what it is for; then the one for all keys.
func TestRefusalOfPrefixWithoutSlash(t *testing.T) {
	t.Parallel()
	endpoint := etcdWithUsers(t, "bob")
	r := rollcallAt(t, endpoint, asUser("ls shop")...)
	wantIn(t, "stderr", r.stderr, `may not read keys "shop" to "shoq"; to permit rollcall ls shop/: rollcall roles viewer --prefix shop/ --grant-to bob --apply --user root; `+
		"to permit all keys: rollcall roles viewer --grant-to bob --apply --user root\n")
	must(t, endpoint, strings.Fields("roles viewer --prefix shop/ --grant-to bob --apply --user root:secret")...)
	must(t, endpoint, asUser("ls shop/")...)
	if r := rollcallAt(t, endpoint, asUser("ls shop")...); r.code != exitNotPermitted {
		t.Errorf("exit %d, want %d", r.code, exitNotPermitted)
	}
	must(t, endpoint, strings.Fields("roles viewer --grant-to bob --apply --user root:secret")...)
	must(t, endpoint, asUser("ls shop")...)
}

// TestRefusalOfPartOfTransaction: of a transaction that touches several services, the one that is refused is named.
func TestRefusalOfPartOfTransaction(t *testing.T) {
	t.Parallel()
	endpoint := etcdWithUsers(t, "bob")
	must(t, endpoint, strings.Fields("roles operator shop --grant-to bob --apply --user root:secret")...)
	r := rollcallAt(t, endpoint, asUser("mv shop store --force")...)
	if r.code != exitNotPermitted {
		t.Errorf("exit %d, want %d", r.code, exitNotPermitted)
	}
	wantIn(t, "stderr", r.stderr, `may not read keys "store/" to "store0"`, "roles operator store --grant-to bob")
}

// TestRolesAreEnough: who has a role of a kind, and nothing else, may do what it is for.
func TestRolesAreEnough(t *testing.T) {
	for _, row := range []struct {
		role     string
		commands []string // none of them may be refused anything
		not      []string // what the role must not permit
	}{
		{"viewer", []string{"ls", "ls sh", "get shop", "history shop", "resolve shop", "config get shop", "status"}, []string{"add shop 10.0.0.2:80", "drain shop a --force"}},
		{"viewer shop", []string{"ls shop/", "get shop", "history shop", "resolve shop", "config get shop"}, []string{"ls", "get other", "add shop 10.0.0.2:80"}},
		{"resolver shop", []string{"resolve shop", "get shop"}, []string{"ls", "add shop 10.0.0.2:80"}},
		{"registrar shop", []string{"register shop --addr 10.0.0.4:80 -- sleep 1"}, []string{"config set shop testdata/input/round_robin.json", "register other --addr 10.0.0.4:80 -- sleep 1"}},
		{"operator shop", []string{"add shop 10.0.0.2:80 --ttl 60s", "drain shop a --force", "undrain shop a", "weight shop a 3",
			"config set shop testdata/input/round_robin.json", "config rm shop", "rm shop a"}, []string{"ls", "add other 10.0.0.2:80"}},
	} {
		t.Run(row.role, func(t *testing.T) {
			t.Parallel()
			endpoint := etcdWithUsers(t, "bob")
			must(t, endpoint, append(strings.Fields("roles "+row.role), "--grant-to", "bob", "--apply", "--user", "root:secret")...)
			mayOnly(t, endpoint, row.commands, row.not)
		})
	}
}

// mayOnly checks that a user may run some commands, and not others.
func mayOnly(t *testing.T, endpoint string, commands, not []string) {
	t.Helper()
	for _, command := range commands {
		r := rollcallAt(t, endpoint, asUser(command)...)
		if r.code != 0 || strings.Contains(r.stderr, "denied") {
			t.Errorf("%s: exit %d, stderr %q", command, r.code, r.stderr)
		}
	}
	for _, command := range not {
		if r := rollcallAt(t, endpoint, asUser(command)...); r.code != exitNotPermitted {
			t.Errorf("%s: exit %d, want %d; stderr %q", command, r.code, exitNotPermitted, r.stderr)
		}
	}
}

// TestRolesOfLiveCommands: what follows etcd works with its role, and says what it lacks without.
func TestRolesOfLiveCommands(t *testing.T) {
	t.Parallel()
	endpoint := etcdWithUsers(t, "bob")
	env := []string{"ROLLCALL_ENDPOINTS=" + endpoint, "ROLLCALL_USER=bob:pw"}
	grant := func(role string) {
		t.Helper()
		must(t, endpoint, append(strings.Fields("roles "+role), "--grant-to", "bob", "--apply", "--user", "root:secret")...)
	}
	for _, row := range []struct{ command, want string }{
		{"watch shop", "rollcall roles viewer shop --grant-to bob"},
		{"top shop/", "rollcall roles viewer shop --grant-to bob"},
	} {
		x := rollcallIn(t, env, strings.Fields(row.command)...)
		if code := x.End(); code != exitNotPermitted {
			t.Errorf("%s: exit %d, want %d", row.command, code, exitNotPermitted)
		}
		wantIn(t, row.command, strings.Join(strings.Fields(x.Screen()), ""), strings.ReplaceAll(row.want, " ", ""))
	}
	grant("viewer shop")
	x := rollcallIn(t, env, "watch", "shop")
	x.Await("= a  10.0.0.1:80")
	x.Type("\x03")
	x.End()
	x = rollcallIn(t, env, "top", "shop/")
	x.Await("> a   10.0.0.1:80  serving")
	x.Type("d")
	x.Await("drain shop/a (10.0.0.1:80)? y/n")
	x.Type("y")
	x.Await(`cannot drain shop/a: user "bob" may not write key "shop/a"`)
	x.Type("q")
	x.End()
	wantIn(t, "the end of top", strings.Join(strings.Fields(x.Screen()), ""), "rollcallrolesoperatorshop--grant-tobob")

	s := beginServe(t, endpoint, "--user", "bob:pw", "--console", "127.0.0.1:0")
	page := consoleAt.FindStringSubmatch(s.stderr.String())[1]
	eventually(t, "the page says what is refused", func() bool { return strings.Contains(pageAt(t, page), "refuses") })
	grant("console")
	eventually(t, "the page shows the service", func() bool { return strings.Contains(pageAt(t, page), "shop") })
}

func pageAt(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// asUser is a command line run by bob.
func asUser(command string) []string {
	own, child, parent := strings.Cut(command, " -- ")
	args := append(strings.Fields(own), "--user", "bob:pw")
	if parent {
		args = append(append(args, "--"), strings.Fields(child)...)
	}
	return args
}

// TestRefusedBy: what a request is about, and the service that its keys are of.
func TestRefusedBy(t *testing.T) {
	put := &pb.PutRequest{Key: []byte("shop/a")}
	read := &pb.RangeRequest{Key: []byte("pay/"), RangeEnd: []byte("pay0")}
	txn := &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestRange{RequestRange: read}},
		{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}}}}},
	}}
	for _, row := range []struct {
		request               any
		text, service, prefix string // "" for none
	}{
		{read, `keys "pay/" to "pay0"`, "pay", "pay/"},
		{put, `key "shop/a"`, "shop", ""},
		{txn, `key "shop/a"`, "shop", ""},
		{&pb.RangeRequest{Key: []byte("_grpc_config/shop/cart")}, `key "_grpc_config/shop/cart"`, "shop/cart", ""},
		{&pb.RangeRequest{Key: []byte("_grpc_config/"), RangeEnd: []byte("_grpc_config0")}, `keys "_grpc_config/" to "_grpc_config0"`, "", ""},
		{&pb.RangeRequest{Key: []byte("shop/"), RangeEnd: []byte("shop9")}, `keys "shop/" to "shop9"`, "", ""},
		{&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}}}}, `all keys from "\x00" on`, "", ""},
		{&pb.LeaseGrantRequest{}, "", "", ""},
		{&pb.RangeRequest{Key: []byte("team-a"), RangeEnd: []byte("team-b")}, `keys "team-a" to "team-b"`, "", "team-a/"},
		{&pb.RangeRequest{Key: []byte("team-a/us"), RangeEnd: []byte("team-a/ut")}, `keys "team-a/us" to "team-a/ut"`, "", "team-a/"},
		{&pb.RangeRequest{Key: []byte("a*/"), RangeEnd: []byte("a*0")}, `keys "a*/" to "a*0"`, "", ""},
		{&pb.RangeRequest{Key: []byte("/"), RangeEnd: []byte("0")}, `keys "/" to "0"`, "", ""},
	} {
		r := refusedBy(row.request)
		if r == nil {
			if row.text != "" {
				t.Errorf("%v: no keys, want %s", row.request, row.text)
			}
			continue
		}
		if r.String() != row.text || r.service() != row.service || r.prefix() != row.prefix {
			t.Errorf("%v: %s of %q and %q, want %s of %q and %q", row.request, r, r.service(), r.prefix(), row.text, row.service, row.prefix)
		}
	}
}
