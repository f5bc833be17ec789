// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

var someOrigin = []metadataField{{"started", jsonText("2026-01-02T03:04:05Z")}, {"host", jsonText("node-1")}}

func TestWithOrigin(t *testing.T) {
	const started, host = `"started":"2026-01-02T03:04:05Z"`, `"host":"node-1"`
	large := `{"a":"` + strings.Repeat("x", MaxMetadata-len(`{"a":""}`)-10) + `"}`
	for _, row := range []struct {
		name     string
		metadata any
		origin   []metadataField
		want     string
	}{
		{"nothing", nil, someOrigin, "{" + started + "," + host + "}"},
		{"null", json.RawMessage("null"), someOrigin, "{" + started + "," + host + "}"},
		{"a nil map", map[string]int(nil), someOrigin, "{" + started + "," + host + "}"},
		{"no fields", struct{}{}, someOrigin, "{" + started + "," + host + "}"},
		{"fields in the program's order", json.RawMessage(`{ "zone": "z", "a": [1, 2] }`), someOrigin, `{"zone":"z","a":[1,2],` + started + "," + host + "}"},
		{"its own start", map[string]string{"started": "2020-01-01T00:00:00Z"}, someOrigin, `{"started":"2020-01-01T00:00:00Z",` + host + "}"},
		{"its own host", map[string]any{"host": nil}, someOrigin, `{"host":null,` + started + "}"},
		{"its own both", json.RawMessage(`{"host":"","started":7}`), someOrigin, `{"host":"","started":7}`},
		{"text", "zone", someOrigin, `"zone"`},
		{"a number", 7, someOrigin, "7"},
		{"a list", []string{"a"}, someOrigin, `["a"]`},
		{"no space left", json.RawMessage(large), someOrigin, large},
		{"a machine without a name", nil, someOrigin[:1], "{" + started + "}"},
		{"none, no metadata", nil, nil, "null"},
		{"none, no fields", struct{}{}, nil, "{}"},
		{"none, fields", map[string]int{"a": 1}, nil, `{"a":1}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			value, err := (&Registrar{origin: row.origin}).encode("h:1", row.metadata)
			if err != nil {
				t.Fatal(err)
			}
			if want := `{"Op":0,"Addr":"h:1","Metadata":` + row.want + "}"; string(value) != want {
				t.Errorf("got %.200s, want %.200s", value, want)
			}
		})
	}
	if _, err := (&Registrar{origin: someOrigin}).encode("h:1", make(chan int)); err == nil {
		t.Error("a channel was taken for metadata")
	}
}

func TestProcessOrigin(t *testing.T) {
	metadata := withOrigin([]byte("null"), processOrigin())
	a := (&Instance{Metadata: metadata}).Attributes()
	host, _ := os.Hostname()
	if age := time.Since(a.Started); age < 0 || age > time.Hour || a.Host != host || len(a.Invalid) > 0 {
		t.Errorf("%s: started %v ago on %q, want a short time, on %q; invalid: %v", metadata, age, a.Host, host, a.Invalid)
	}
	if again := withOrigin([]byte("null"), processOrigin()); string(again) != string(metadata) {
		t.Errorf("%s, then %s", metadata, again)
	}
}

func from(fields string) string {
	return `{"Op":0,"Addr":"host-a:80","Metadata":{` + fields + "}}"
}

// The origin is part of what the program wants, in every write, and no operator's edit.
func TestOriginStays(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		d.registrar.origin = someOrigin
		const origin = `"started":"2026-01-02T03:04:05Z","host":"node-1"`
		const sorted = `"host":"node-1","started":"2026-01-02T03:04:05Z"` // as WithField and edits leave fields
		g := d.registered("a", nil)
		d.holds(g, from(origin))
		d.noError("drain", g.Drain(d.within(time.Second)))
		d.holds(g, from(sorted+`,"status":"draining"`))
		d.noError("undrain", g.Undrain(d.within(time.Second)))
		d.holds(g, from(origin))
		d.noError("update", g.Update(d.within(time.Second), map[string]int{"a": 1}))
		d.holds(g, from(`"a":1,`+origin))
		d.put(g.Key(), from(`"a":1,`+sorted+`,"weight":7`), d.lease()) // an operator's edit
		time.Sleep(time.Second)
		d.noError("update", g.Update(d.within(time.Second), map[string]int{"a": 2}))
		d.holds(g, from(`"a":2,`+sorted+`,"weight":7`))
		d.noError("update to text", g.Update(d.within(time.Second), "text"))
		d.holds(g, `{"Op":0,"Addr":"host-a:80","Metadata":"text"}`)
		d.noError("update to an object", g.Update(d.within(time.Second), map[string]string{"host": "mine"}))
		d.holds(g, from(`"host":"mine","started":"2026-01-02T03:04:05Z"`))
	})
}

// A process that is restarted has another origin, which replaces the earlier one and does not look
// like an operator's edit; nor does the end of its predecessor's lease.
func TestRestartedProcessHasAnotherOrigin(t *testing.T) {
	withRegistrar(t, RegistrarOptions{}, func(d *registrarEnv) {
		d.registrar.origin = someOrigin
		former, err := d.other.Grant(d.within(time.Second), 5)
		d.noError("grant", err)
		d.put("svc/a", from(`"started":"2026-01-01T00:00:00Z","host":"node-0"`), former.ID)
		g := d.registered("a", nil)
		const want = `"started":"2026-01-02T03:04:05Z","host":"node-1"`
		d.holds(g, from(want))
		_, err = d.other.Revoke(d.within(time.Second), former.ID)
		d.noError("revoke", err)
		time.Sleep(time.Minute)
		d.holds(g, from(want))
		d.registrar.mu.Lock()
		edited := g.observed.edited()
		d.registrar.mu.Unlock()
		if edited {
			t.Error("the earlier origin counts as an operator's edit")
		}
		d.store.Delete(g.Key())
		time.Sleep(time.Minute)
		d.holds(g, from(want))
	})
}
