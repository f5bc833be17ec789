// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"pgregory.net/rapid"

	"github.com/rollcall-grpc/rollcall"
)

func settingsOf(t *testing.T, config string) *settings {
	t.Helper()
	s, err := parse([]byte(config), rollcall.Locality{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSplit(t *testing.T) {
	const here = `{"region":"eu","zone":"a"}`
	a, b, c, us := locality{"eu", "a"}, locality{"eu", "b"}, locality{"eu", "c"}, locality{"us", "x"}
	for _, tt := range []struct {
		name, config string
		capacity     map[locality]float64
		want         [levels + 1]float64 // anywhere, region, zone, subzone
	}{
		{"all is well", here, map[locality]float64{a: 10, b: 10, us: 10}, [4]float64{0, 0, 0, 1}},
		{"a little less is as good", here, map[locality]float64{a: 10, b: 11}, [4]float64{0, 0, 0, 1}},
		{"half of the zone is gone", here, map[locality]float64{a: 5, b: 10}, [4]float64{0, 1. / 3, 0, 2. / 3}},
		{"half of it, of three", here, map[locality]float64{a: 5, b: 10, c: 10}, [4]float64{0, 1 - 5/8.1, 0, 5 / 8.1}},
		{"the zone is gone", here, map[locality]float64{b: 10, us: 10}, [4]float64{0, 1, 0, 0}},
		{"the region is gone", here, map[locality]float64{us: 10}, [4]float64{1, 0, 0, 0}},
		{"hardly anything is left in the region", here, map[locality]float64{a: 1, us: 99}, [4]float64{1 - 1/9.802, 0, 0, 1 / 9.802}},
		{"a small region keeps its calls", here, map[locality]float64{a: 20, us: 100}, [4]float64{0, 0, 0, 1}},
		{"nobody is healthy", here, map[locality]float64{}, [4]float64{0, 0, 0, 1}},
		{"no region", `{"zone":"a"}`, map[locality]float64{a: 5, us: 10}, [4]float64{0, 1. / 3, 0, 2. / 3}},
		{"nothing is known", `{}`, map[locality]float64{a: 5, us: 10}, [4]float64{0, 0, 0, 1}},
		{"spill sooner", `{"zone":"a","spillBelow":{"zone":1}}`, map[locality]float64{a: 5, b: 10}, [4]float64{0, 0.4, 0, 0.6}},
		{"subzones", `{"zone":"a","subzone":"1"}`, map[locality]float64{{"", "a", "1"}: 1, {"", "a", "2"}: 3, {"", "b", "1"}: 4}, [4]float64{0, 0, 1 - 1/2.25, 1 / 2.25}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := settingsOf(t, tt.config).split(tt.capacity)
			for i := range got {
				if math.Abs(got[i]-tt.want[i]) > 1e-3 {
					t.Fatalf("shares %.4f, want %.4f", got, tt.want)
				}
			}
		})
	}
}

// The shares add up to all; less capacity in the zone never draws calls to it, and a little
// less never moves more than a little. Who has a share has somebody to call.
func TestSplitHasNoCliff(t *testing.T) {
	s := settingsOf(t, `{"region":"eu","zone":"a","subzone":"1"}`)
	part := rapid.SampledFrom([]string{"eu", "us"})
	zone := rapid.SampledFrom([]string{"a", "b", "c"})
	sub := rapid.SampledFrom([]string{"", "1", "2"})
	rapid.Check(t, func(t *rapid.T) {
		capacity := map[locality]float64{{"eu", "a", "1"}: rapid.Float64Range(1, 50).Draw(t, "here")}
		for range rapid.IntRange(0, 6).Draw(t, "localities") {
			capacity[locality{part.Draw(t, "region"), zone.Draw(t, "zone"), sub.Draw(t, "subzone")}] = rapid.Float64Range(0.1, 50).Draw(t, "capacity")
		}
		// At each of three levels the share falls by at most 2 % when the capacity falls by 1 %.
		const step, most = 0.005, 3 * 2 * 0.005 * 1.1
		before := math.NaN()
		for left := capacity[locality{"eu", "a", "1"}]; ; left *= 1 - step {
			if left < 1e-5 {
				left = 0
			}
			capacity[locality{"eu", "a", "1"}] = left
			shares, sum := s.split(capacity), 0.0
			for group, share := range shares {
				sum += share
				alive := 0.0
				for p, c := range capacity {
					if s.group(p) == group {
						alive += c
					}
				}
				if share < 0 || share > 1e-9 && alive == 0 && len(capacity) > 1 {
					t.Fatalf("%v: group %d has %v of the calls and a capacity of %v", capacity, group, share, alive)
				}
			}
			if math.Abs(sum-1) > 1e-9 {
				t.Fatalf("%v: shares %v add up to %v", capacity, shares, sum)
			}
			if len(capacity) == 1 {
				return
			}
			if here := shares[levels]; here > before+1e-9 || before-here > most {
				t.Fatalf("%v: the share of the zone goes from %v to %v", capacity, before, here)
			} else {
				before = here
			}
			if left == 0 {
				return
			}
		}
	})
}

// A group that fails is given up where nobody would need it, and kept where it would have
// calls if it recovered.
func TestFailingUnused(t *testing.T) {
	p := builder{}.Build(nil, balancer.BuildOptions{}).(*policy)
	defer p.timer.Stop()
	p.err = nil
	p.settings = settingsOf(t, `{"region":"","zone":"a","subzone":""}`)
	p.capacities = map[locality]*capacity{{"", "a"}: {3, 3}, {"", "b"}: {3, 3}}
	near, far := p.groups[p.settings.group(locality{"", "a"})], p.groups[p.settings.group(locality{"", "b"})]
	for _, g := range []*group{near, far} {
		near.state, far.state = balancer.State{}, balancer.State{}
		g.state.ConnectivityState = connectivity.TransientFailure
		p.divideLocked()
		if g.share != 0 || g.unusedSince.IsZero() != (g == near) {
			t.Errorf("near fails: %v, share %d, unused since %v", g == near, g.share, g.unusedSince)
		}
	}
}

func TestConfig(t *testing.T) {
	env := rollcall.Locality{Region: "r", Zone: "from-env"}
	settingsOf := func(t *testing.T, config string) *settings {
		t.Helper()
		s, err := parse([]byte(config), env)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := settingsOf(t, `{"region":""}`); s.caller != (locality{"", "from-env", ""}) || s.child.builder.Name() != "round_robin" {
		t.Errorf("caller %q, child %s", s.caller, s.child.builder.Name())
	}
	if s := settingsOf(t, `{"zone":"x","childPolicy":[{"no_such":{}},{"pick_first":{"shuffleAddressList":true}}]}`); s.caller != (locality{"r", "x", ""}) || s.child.builder.Name() != "pick_first" || s.child.config == nil {
		t.Errorf("caller %q, child %v", s.caller, s.child)
	}
	for config, want := range map[string]string{
		`{"childPolicy":[]}`:                                          "empty",
		`{"childPolicy":[{"no_such":{}}]}`:                            "none of no_such",
		`{"childPolicy":[{"pick_first":{},"round_robin":{}}]}`:        "names 2 policies",
		`{"childPolicy":[{"pick_first":{"shuffleAddressList":"x"}}]}`: "childPolicy: pick_first",
		`{"spillBelow":{"zone":0}}`:                                   "spillBelow.zone is 0",
		`{"spillBelow":{"region":1.5}}`:                               "spillBelow.region is 1.5",
		`{"zone":7}`:                                                  "zone",
		`[]`:                                                          Name,
	} {
		if _, err := parse([]byte(config), rollcall.Locality{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}

// The registered policy takes what a config leaves out from the environment, read once.
func TestEnvironment(t *testing.T) {
	for _, name := range []string{"first", "second"} {
		t.Setenv("ROLLCALL_ZONE", name)
		t.Setenv("ROLLCALL_REGION", "r")
		config, err := balancer.Get(Name).(balancer.ConfigParser).ParseConfig([]byte(`{"region":""}`))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := config.(*settings).caller, (locality{"", "first", ""}); got != want {
			t.Errorf("caller %q, want %q", got, want)
		}
	}
}
