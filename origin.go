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
	origin := []metadataField{{fields[fieldStarted].name, jsonText(processStarted.UTC().Format(time.RFC3339))}}
	if host, err := os.Hostname(); err == nil && host != "" {
		origin = append(origin, metadataField{fields[fieldHost].name, jsonText(host)})
	}
	return origin
})

type metadataField struct {
	name  string // one that needs no escape
	value json.RawMessage
}

// withOrigin returns metadata, as encodeMetadata has returned it, with the fields of an origin that it
// does not have, after its own. What is neither an object nor null, and what has no space left, stays as
// it is.
func withOrigin(metadata []byte, origin []metadataField) []byte {
	var has map[string]json.RawMessage
	if json.Unmarshal(metadata, &has) != nil {
		return metadata
	}
	object := metadata
	if has == nil {
		object = []byte("{}")
	}
	with := append(make([]byte, 0, len(object)+100), object[:len(object)-1]...) // 100: the fields of most machines
	for _, f := range origin {
		if _, set := has[f.name]; set {
			continue
		}
		if len(with) > 1 {
			with = append(with, ',')
		}
		with = append(append(append(append(with, '"'), f.name...), `":`...), f.value...)
	}
	if with = append(with, '}'); len(with) > MaxMetadata || len(with) == len("{}") {
		return metadata
	}
	return with
}
