// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// ServiceConfig is the gRPC service config of a service, as etcd holds it. It is immutable.
type ServiceConfig struct {
	Service     string
	JSON        json.RawMessage // as stored, perhaps not valid; nil: the service has none
	ModRevision int64           // 0: the service has none

	wholeKey string
}

func (c *ServiceConfig) key() string { return c.wholeKey }

// equal reports whether both are the same write of the same text.
func (c *ServiceConfig) equal(o *ServiceConfig) bool {
	return o != nil && c.ModRevision == o.ModRevision && bytes.Equal(c.JSON, o.JSON)
}

// summary tells writes of a key apart.
func (c *ServiceConfig) summary() string {
	if c == nil {
		return "nothing"
	}
	return fmt.Sprintf("a service config, ModRevision %d", c.ModRevision)
}

func isConfigKey(key []byte) bool { return bytes.HasPrefix(key, []byte(ConfigPrefix)) }

func decodeServiceConfig(kv *mvccpb.KeyValue) *ServiceConfig {
	key := string(kv.Key)
	return &ServiceConfig{Service: strings.TrimPrefix(key, ConfigPrefix), JSON: append(json.RawMessage{}, kv.Value...),
		ModRevision: kv.ModRevision, wholeKey: key}
}
