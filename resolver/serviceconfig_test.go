// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// config returns the service config that came with the last state.
func (c *channel) config() string {
	c.told()
	if sc := c.last().ServiceConfig; sc != nil {
		return sc.Config.(parsed).text
	}
	return "none"
}

func wantConfig(t *testing.T, c *channel, want string) {
	t.Helper()
	if got := c.config(); got != want {
		t.Errorf("the channel was told of the service config %s, want %s", got, want)
	}
}

const configKey = rollcall.ConfigPrefix + "svc"

func TestServiceConfig(t *testing.T) {
	bubble(t, func(s *fakeetcd.Store, _ *fakeetcd.Conn) { s.Put("svc/a", `{"Addr":"a:1"}`) }, func(t *testing.T, s *fakeetcd.Store, _ *fakeetcd.Conn, c *channel, _ grpcresolver.Resolver) {
		wantConfig(t, c, "none")
		s.Put(configKey, `{"a":1}`)
		wantConfig(t, c, `{"a":1}`)
		s.Put(configKey, `{"bad":1}`)
		wantConfig(t, c, `{"a":1}`)
		s.Put(configKey, `no JSON`)
		wantConfig(t, c, `{"a":1}`)
		s.Put("svc/b", `{"Addr":"b:1"}`)
		wantConfig(t, c, `{"a":1}`) // with every state
		s.Put(configKey, `{"Addr":"x:1","a":2}`)
		wantConfig(t, c, `{"Addr":"x:1","a":2}`) // no endpoint, for all that it looks like one
		states := len(c.states)
		s.Put(configKey, `{"Addr":"x:1","a":2}`)
		c.told()
		if len(c.states) != states {
			t.Error("the same config, written again, is a state")
		}
		s.Delete(configKey)
		wantConfig(t, c, "{}") // gRPC would keep the last
		s.Put(configKey, `null`)
		wantConfig(t, c, "{}")
		s.Put(configKey, `{"a":3}`)
		wantConfig(t, c, `{"a":3}`)
		s.Put(configKey, "") // is no deletion
		wantConfig(t, c, `{"a":3}`)
	})
}

func TestServiceConfigOverDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, done := buildWith(t, Options{DefaultServiceConfig: `{"methodConfig":[],"loadBalancingConfig":[{"round_robin":{}}]}`}, func(s *fakeetcd.Store) {
			s.Put("svc/a", `{"Addr":"a:1"}`)
			s.Put(configKey, `{"bad":1}`)
		}, grpcresolver.BuildOptions{})
		defer done()
		const fallback = `{"methodConfig":[],"loadBalancingConfig":[{"round_robin":{}}]}`
		wantConfig(t, c, fallback) // none that could be kept
		s.Put(configKey, `{"loadBalancingConfig":[{"pick_first":{}}]}`)
		wantConfig(t, c, `{"loadBalancingConfig":[{"pick_first":{}}],"methodConfig":[]}`)
		s.Put(configKey, `{"MethodConfig":[{}],"loadBalancingPolicy":"pick_first"}`)
		wantConfig(t, c, `{"MethodConfig":[{}],"loadBalancingPolicy":"pick_first"}`)
		s.Delete(configKey)
		wantConfig(t, c, fallback)
	})
}

func TestServiceConfigIsAskedForWithTheEndpoints(t *testing.T) {
	bubble(t, func(s *fakeetcd.Store, _ *fakeetcd.Conn) { s.Put("svc/a", `{"Addr":"a:1"}`) },
		func(t *testing.T, _ *fakeetcd.Store, conn *fakeetcd.Conn, c *channel, _ grpcresolver.Resolver) {
			c.want(t, "state [a:1]")
			if txns, gets := conn.Calls(fakeetcd.Txn), conn.Calls(fakeetcd.Get); txns != 1 || gets != 0 {
				t.Errorf("%d transactions and %d ranges, want 1 and none", txns, gets)
			}
		})
}

func TestServiceConfigNotWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, done := buildWith(t, Options{}, func(s *fakeetcd.Store) {
			s.Put("svc/a", `{"Addr":"a:1"}`)
			s.Put(configKey, `{"a":1}`)
		}, grpcresolver.BuildOptions{DisableServiceConfig: true})
		defer done()
		wantConfig(t, c, "none")
	})
}

func isConfig(key string) bool { return strings.HasPrefix(key, rollcall.ConfigPrefix) }

// Without the right to read it there is none; it is looked for again every few minutes.
func TestServiceConfigDenied(t *testing.T) {
	var denied atomic.Bool
	denied.Store(true)
	bubble(t, func(s *fakeetcd.Store, conn *fakeetcd.Conn) {
		s.Put("svc/a", `{"Addr":"a:1"}`)
		s.Put(configKey, `{"a":1}`)
		conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if denied.Load() && slices.ContainsFunc(call.Reads(), isConfig) {
				return rpctypes.ErrGRPCPermissionDenied
			}
			return nil
		})
	}, func(t *testing.T, s *fakeetcd.Store, _ *fakeetcd.Conn, c *channel, _ grpcresolver.Resolver) {
		wantConfig(t, c, "none")
		s.Put("svc/b", `{"Addr":"b:1"}`)
		c.want(t, "state [a:1 b:1]")
		denied.Store(false)
		time.Sleep(8 * time.Minute)
		wantConfig(t, c, `{"a":1}`)
	})
}

// A role that may read the service config of its own service only gets it.
func TestServiceConfigOfOneService(t *testing.T) {
	bubble(t, func(s *fakeetcd.Store, conn *fakeetcd.Conn) {
		s.Put("svc/a", `{"Addr":"a:1"}`)
		s.Put(configKey, `{"a":1}`)
		conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if slices.ContainsFunc(call.Reads(), func(key string) bool { return isConfig(key) && key != configKey }) {
				return rpctypes.ErrGRPCPermissionDenied
			}
			return nil
		})
	}, func(t *testing.T, s *fakeetcd.Store, conn *fakeetcd.Conn, c *channel, _ grpcresolver.Resolver) {
		wantConfig(t, c, `{"a":1}`)
		s.Put(configKey, `{"a":2}`)
		wantConfig(t, c, `{"a":2}`)
		conn.SetHook(nil) // it may read those of all services
		time.Sleep(8 * time.Minute)
		s.Put(configKey, `{"a":3}`)
		wantConfig(t, c, `{"a":3}`)
		s.Delete(configKey)
		wantConfig(t, c, `{}`)
	})
}

func TestCheckServiceConfig(t *testing.T) {
	for config, want := range map[string]string{
		`{"loadBalancingConfig":[{"round_robin":{}}]}`: "",
		`{}`: "",
		`{"loadBalancingConfig":[{"no_such":{}}]}`:       "no_such",
		`{"methodConfig":[{"name":[{}],"timeout":"x"}]}`: "timeout",
		`null`: "not a JSON object",
		`[]`:   "not a JSON object",
		`{`:    "not a JSON object",
	} {
		err := CheckServiceConfig(config)
		if (err == nil) != (want == "") {
			t.Errorf("%s: %v", config, err)
		}
		if err != nil && !errors.As(err, new(*rollcall.InputError)) {
			t.Errorf("%s: %v is no InputError", config, err)
		}
	}
}

// buildWith is bubble with options, within a bubble.
func buildWith(t *testing.T, opts Options, prepare func(*fakeetcd.Store), build grpcresolver.BuildOptions) (*fakeetcd.Store, *channel, func()) {
	t.Helper()
	s := fakeetcd.New()
	conn := s.Connect(t.Context())
	prepare(s)
	d, err := rollcall.SharedDirectory(conn.Client)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBuilderWithOptions(d, opts)
	if err != nil {
		t.Fatal(err)
	}
	c := &channel{}
	r, err := b.Build(target("etcd:///svc"), c, build)
	if err != nil {
		t.Fatal(err)
	}
	return s, c, func() {
		r.Close()
		conn.Close()
		s.Close()
	}
}
