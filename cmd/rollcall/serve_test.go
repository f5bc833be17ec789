// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	grpcxds "google.golang.org/grpc/xds"

	"github.com/rollcall-grpc/rollcall/internal/devetcd"
)

// served is a rollcall serve in this process.
type served struct {
	*session
	xds   []string // addresses
	admin string
}

var servedAt = regexp.MustCompile(`serving xDS at (.+); admin at http://(\S+);`)

// beginServe starts rollcall serve on free ports and waits until it listens.
func beginServe(t *testing.T, endpoint string, args ...string) *served {
	t.Helper()
	args = append([]string{"serve", "--admin", "127.0.0.1:0"}, args...)
	if !slices.Contains(args, "--xds") {
		args = append(args, "--xds", "127.0.0.1:0")
	}
	s := &served{session: begin(t, []string{"ROLLCALL_ENDPOINTS=" + endpoint}, args...)}
	t.Cleanup(func() {
		s.cancel(nil)
		select {
		case <-s.code:
		case <-time.After(10 * time.Second):
			t.Errorf("rollcall serve does not end: %s", s.stderr.String())
		}
	})
	s.xds, s.admin = awaitServed(t, s.stderr.String)
	return s
}

// awaitServed returns the addresses that a rollcall serve says it listens at.
func awaitServed(t *testing.T, stderr func() string) (xds []string, admin string) {
	t.Helper()
	eventually(t, "it listens", func() bool { return servedAt.MatchString(stderr()) })
	match := servedAt.FindStringSubmatch(stderr())
	for addr := range strings.SplitSeq(match[1], " and ") {
		addr, _, _ = strings.Cut(addr, " ")
		xds = append(xds, addr)
	}
	return xds, match[2]
}

// stop ends it as SIGTERM does and returns the exit code.
func (s *served) stop(t *testing.T) int {
	t.Helper()
	s.interrupt()
	code := s.end(t)
	s.code <- code // for the cleanup
	return code
}

// get reads from the admin address.
func get(t *testing.T, addr, path string) (code int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + addr + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func awaitReady(t *testing.T, admin string) {
	t.Helper()
	eventually(t, "it is ready", func() bool { code, _ := get(t, admin, "/readyz"); return code == http.StatusOK })
}

// namedBackend answers with its name.
type namedBackend struct {
	testpb.UnimplementedTestServiceServer
	name string
}

func (n namedBackend) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{ServerId: n.name}, nil
}

// startNamed starts a server for clients to call, and returns its address.
func startNamed(t *testing.T, name string) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	testpb.RegisterTestServiceServer(srv, namedBackend{name: name})
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(lis) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	return lis.Addr().String()
}

// addNamed starts a server and adds it under a service until the test ends.
func addNamed(t *testing.T, endpoint, service, name string) {
	t.Helper()
	must(t, endpoint, "add", service, startNamed(t, name), "--id", name)
	t.Cleanup(func() { rollcallAt(t, endpoint, "rm", service, name) })
}

// dialXDS returns a channel of grpc-go's xDS client, which starts with what xds bootstrap prints.
func dialXDS(t *testing.T, target string, args ...string) testpb.TestServiceClient {
	t.Helper()
	printed := must(t, "127.0.0.1:1", append([]string{"xds", "bootstrap"}, args...)...)
	if printed.stderr != "" {
		t.Fatalf("xds bootstrap warns: %s", printed.stderr)
	}
	return dialWith(t, target, printed.stdout)
}

func dialWith(t *testing.T, target, bootstrap string) testpb.TestServiceClient {
	t.Helper()
	builder, err := grpcxds.NewXDSResolverWithConfigForTesting([]byte(bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(target, grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return testpb.NewTestServiceClient(conn)
}

// call makes a call and returns who has answered.
func call(t *testing.T, client testpb.TestServiceClient) (name string, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	resp, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
	return resp.GetServerId(), err
}

func wantCall(t *testing.T, client testpb.TestServiceClient, want string) {
	t.Helper()
	if name, err := call(t, client); name != want || err != nil {
		t.Errorf("%q answers with error %v, want %q", name, err, want)
	}
}

// TestServe: a client that starts with what xds bootstrap prints finds what add has added, over
// TCP and over a unix socket, and is listed.
func TestServe(t *testing.T) {
	endpoint := sharedEtcd(t)
	addNamed(t, endpoint, "t-serve", "one")
	socket := filepath.Join(t.TempDir(), "s")
	s := beginServe(t, endpoint, "--xds", "127.0.0.1:0", "--xds", "unix:"+socket, "--grpc-reflection", "--grpc-channelz")
	awaitReady(t, s.admin)
	if code, body := get(t, s.admin, "/livez"); code != http.StatusOK || body != "alive\n" {
		t.Errorf("/livez: %d %q", code, body)
	}
	if code, body := get(t, s.admin, "/debug/pprof/goroutine?debug=1"); code != http.StatusOK || !strings.Contains(body, "goroutine profile") {
		t.Errorf("/debug/pprof/goroutine: %d", code)
	}
	wantIn(t, "stderr", must(t, endpoint, "xds", "clients", "--admin", s.admin).stderr, "no clients at "+s.admin)

	for _, addr := range s.xds {
		wantCall(t, dialXDS(t, "xds:///t-serve", "--server", addr, "--node-id", "node of "+addr, "--zone", "eu-1"), "one")
		wantCall(t, dialXDS(t, "xds://here/t-serve", "--server", addr, "--authority", "here"), "one")
	}
	eventually(t, "clients have accepted what they were sent", func() bool {
		table := must(t, endpoint, "xds", "clients", "--admin", s.admin).stdout
		return strings.Count(table, "accepted") == 4 && strings.Contains(table, "node of "+s.xds[0]) && strings.Contains(table, "eu-1")
	})
	wantIn(t, "clients as JSON", must(t, endpoint, "xds", "clients", "--admin", s.admin, "-o", "json").stdout,
		`"kind": "XDSClientList"`, `"zone": "eu-1"`, `"type": "envoy.config.endpoint.v3.ClusterLoadAssignment"`)
	wantIn(t, "services", strings.Join(reflectedAt(t, s.xds[0]), " "),
		"envoy.service.discovery.v3.AggregatedDiscoveryService", "grpc.health.v1.Health", "grpc.channelz.v1.Channelz")

	began := time.Now()
	if code := s.stop(t); code != 0 {
		t.Errorf("exit %d, want 0; stderr %q", code, s.stderr.String())
	}
	if took := time.Since(began); took > stopTimeout/2 {
		t.Errorf("it took %v to end, with clients that leave when their streams end", took)
	}
	for line := range strings.Lines(s.stderr.String()) {
		if !strings.HasPrefix(line, "rollcall: serving xDS at") {
			t.Errorf("told without need: %q", line)
		}
	}
}

// TestServeWithoutEtcd: it starts, is not ready and says why, once; later it is ready whatever
// becomes of etcd, and serves what it knows to those who come.
func TestServeWithoutEtcd(t *testing.T) {
	addr := freeAddr(t)
	s := beginServe(t, addr)
	eventually(t, "it knows why it is not ready", func() bool {
		code, body := get(t, s.admin, "/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "not ready: etcd at "+addr) && strings.Contains(body, "connection refused")
	})
	if got := healthOf(t, s.xds[0]); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health is %v", got)
	}
	warned := rollcallAt(t, addr, "xds", "bootstrap", "--server", s.xds[0])
	wantIn(t, "stderr", warned.stderr, "warning: server "+s.xds[0]+": it is not ready")

	etcd, err := devetcd.Start(t.Context(), devetcd.Options{ClientAddr: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer etcd.Close()
	awaitReady(t, s.admin)
	if got := healthOf(t, s.xds[0]); got != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health is %v", got)
	}
	must(t, addr, "add", "t-known", startNamed(t, "known"))
	before := dialXDS(t, "xds:///t-known", "--server", s.xds[0])
	wantCall(t, before, "known")
	if err := etcd.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the outage is told", func() bool { return strings.Count(s.stderr.String(), "etcd unreachable") == 2 })
	awaitReady(t, s.admin)
	wantCall(t, before, "known")
	wantCall(t, dialXDS(t, "xds:///t-known", "--server", s.xds[0]), "known")
	if code := s.stop(t); code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
	if n := strings.Count(s.stderr.String(), "etcd unreachable"); n != 2 {
		t.Errorf("two outages were told %d times:\n%s", n, s.stderr.String())
	}
}

// TestServeAddressInUse: one line, and what was listened at before is free again.
func TestServeAddressInUse(t *testing.T) {
	endpoint := sharedEtcd(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	used := taken.Addr().String()
	socket := filepath.Join(t.TempDir(), "s")
	other, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	other.(*net.UnixListener).SetUnlinkOnClose(false)
	for _, args := range [][]string{
		{"--xds", used, "--admin", ""},
		{"--xds", "unix:" + socket, "--admin", ""},
		{"--xds", "127.0.0.1:0", "--admin", used},
	} {
		r := rollcallAt(t, endpoint, append([]string{"serve"}, args...)...)
		if r.code != exitOther || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%v: exit %d with %q, want %d with one line", args, r.code, r.stderr, exitOther)
		}
		wantIn(t, "stderr", r.stderr, "the address is in use, perhaps by another rollcall serve: ")
	}
	wantIn(t, "error", cannotListen("--admin", defaultAdminAddr, syscall.EADDRINUSE).Error(),
		"perhaps by another rollcall serve, or kubeadm's etcd, which has its metrics there: choose another address")
	_ = other.Close() // as when its process is killed: the file stays
	s := beginServe(t, endpoint, "--xds", "unix:"+socket)
	awaitReady(t, s.admin)
	if code := s.stop(t); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestListenEverywhere: an address is told as it was given, not as the system has it.
func TestListenEverywhere(t *testing.T) {
	for given, told := range map[string]string{"0.0.0.0:0": "0.0.0.0:", "127.0.0.1:0": "127.0.0.1:"} {
		lis, err := listenTCP("--admin", given)
		if err != nil {
			t.Fatal(err)
		}
		defer lis.Close()
		at := lis.Addr().String()
		if !strings.HasPrefix(at, told) || strings.HasSuffix(at, ":0") {
			t.Errorf("%s is told as %s", given, at)
		}
	}
}

// TestServeKeepsFiles: what is at the path of a unix socket is not removed unless it is a socket.
func TestServeKeepsFiles(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	write(t, file, "precious")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir} {
		r := rollcallAt(t, "127.0.0.1:1", "serve", "--admin", "", "--xds", "unix:"+path)
		if r.code != exitOther || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%s: exit %d with %q, want %d with one line", path, r.code, r.stderr, exitOther)
		}
		wantIn(t, "stderr", r.stderr, "--xds unix:"+path+": there is a file that is not a socket")
	}
	for _, path := range []string{file, link} {
		if content, err := os.ReadFile(path); err != nil || string(content) != "precious" {
			t.Errorf("%s: %q, %v; want it as it was", path, content, err)
		}
	}
}

// TestServeConnectionLimit: a connection has at most 100 streams.
func TestServeConnectionLimit(t *testing.T) {
	s := beginServe(t, sharedEtcd(t), "--xds-max-streams", "200")
	awaitReady(t, s.admin)
	client := discoveryv3.NewAggregatedDiscoveryServiceClient(plainConn(t, s.xds[0]))
	open := func(timeout time.Duration) (end func(), err error) {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		t.Cleanup(cancel)
		stream, err := client.StreamAggregatedResources(ctx)
		if err == nil {
			_ = stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", ResourceNames: []string{"t-limit"}})
			_, err = stream.Recv()
		}
		return cancel, err
	}
	var end func()
	for i := range 100 {
		var err error
		if end, err = open(time.Minute); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	if _, err := open(200 * time.Millisecond); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a stream more than there may be: %v, want it to wait", err)
	}
	end()
	if _, err := open(10 * time.Second); err != nil {
		t.Errorf("a stream in the place of another: %v", err)
	}
}

// TestServeLimits: what is beyond a limit ends that stream alone.
func TestServeLimits(t *testing.T) {
	endpoint := sharedEtcd(t)
	s := beginServe(t, endpoint, "--xds-max-streams", "2", "--xds-max-names", "2")
	awaitReady(t, s.admin)
	conn := plainConn(t, s.xds[0])
	open := func(names ...string) discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", ResourceNames: names})
		return stream
	}
	wantCode := func(what string, stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient, want codes.Code) {
		t.Helper()
		if _, err := stream.Recv(); status.Code(err) != want {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	good := open("t-limits/a")
	wantCode("a stream", good, codes.OK)
	wantCode("too many names", open("t-limits/a", "t-limits/b", "t-limits/c"), codes.ResourceExhausted)
	wantCode("a message of more than 1 MiB", open(strings.Repeat("x", 1<<20)), codes.ResourceExhausted)
	eventually(t, "another stream is served", func() bool { _, err := open("t-limits/b").Recv(); return err == nil })
	wantCode("one stream too many", open("t-limits/c"), codes.ResourceExhausted)
	if err := good.Send(&discoveryv3.DiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", ResourceNames: []string{"t-limits/b"}}); err != nil {
		t.Error(err)
	}
	wantCode("the first stream", good, codes.OK)
}

// freeAddr returns an address that nobody listens at.
func freeAddr(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

func plainConn(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func healthOf(t *testing.T, addr string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	resp, err := healthpb.NewHealthClient(plainConn(t, addr)).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status
}

// reflectedAt asks for the services of a server by reflection.
func reflectedAt(t *testing.T, addr string) (names []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel() // an open stream would delay the server's end
	stream, err := reflectionpb.NewServerReflectionClient(plainConn(t, addr)).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	request := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range resp.GetListServicesResponse().GetService() {
		names = append(names, service.Name)
	}
	return names
}
