// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"encoding/json"
	"os"
	"sync"
	"time"
)

// processStarted is when the process began, but for what it takes to load it.
var processStarted = time.Now()

// processOrigin tells where the endpoints of this process come from. It is the same for as long as
// the process lives, so that a registration which is renewed does not look changed.
var processOrigin = sync.OnceValue(func() []metadataField {
	host, _ := os.Hostname() // "" where the system has none to tell, and is then left out
	return []metadataField{
		{fields[fieldStarted].name, processStarted.UTC().Format(time.RFC3339)},
		{fields[fieldHost].name, host},
	}
})

type metadataField struct{ name, value string }

// withOrigin returns metadata, anything that encoding/json writes, with the fields of an origin that it
// does not have, after its own. What is neither an object nor null, and what has no space left, stays as
// it is.
func withOrigin(metadata any, origin []metadataField) any {
	data, err := json.Marshal(metadata)
	if err != nil {
		return metadata
	}
	var has map[string]json.RawMessage
	if json.Unmarshal(data, &has) != nil {
		return metadata
	}
	if has == nil {
		data = []byte("{}")
	}
	with := data[:len(data)-1]
	for _, f := range origin {
		if _, set := has[f.name]; set || f.value == "" {
			continue
		}
		if len(with) > 1 {
			with = append(with, ',')
		}
		name, _ := json.Marshal(f.name)
		value, _ := json.Marshal(f.value)
		with = append(append(append(with, name...), ':'), value...)
	}
	if with = append(with, '}'); len(with) > MaxMetadata || len(with) == len("{}") {
		return metadata
	}
	return json.RawMessage(with)
}
