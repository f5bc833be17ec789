// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// ConfigPrefix and the name of a service are the key of its gRPC service config.
const ConfigPrefix = "_grpc_config/"

// ServiceConfig is the gRPC service config of a service, as stored in etcd. It is immutable.
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

// ServiceConfig reads the service config of a service from etcd itself, linearizably. Its
// JSON is nil where the service has none.
func (d *Directory) ServiceConfig(ctx context.Context, service string) (*ServiceConfig, error) {
	resp, err := etcdkv.Get(ctx, d.client, ConfigPrefix+service)
	if err != nil {
		return nil, fmt.Errorf("read the service config of %q: %w", service, err)
	}
	if len(resp.Kvs) == 0 {
		return &ServiceConfig{Service: service}, nil
	}
	return decodeServiceConfig(resp.Kvs[0]), nil
}

// ErrConfigChanged is returned by PutServiceConfig and DeleteServiceConfig if the service
// config was changed meanwhile.
var ErrConfigChanged = errors.New("the service config was changed meanwhile")

// PutServiceConfig writes the service config of a service, if config.ModRevision still is
// that of the one that it replaces, 0 for none, and returns it as written. Its JSON must be an
// object, else it is an *InputError; resolver.CheckServiceConfig checks it as gRPC does.
func (d *Directory) PutServiceConfig(ctx context.Context, config ServiceConfig) (*ServiceConfig, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(config.JSON, &fields); err != nil || fields == nil {
		return nil, inputError("service config", string(config.JSON), "it is not a JSON object")
	}
	revision, err := d.writeConfig(ctx, config, func(key string) clientv3.Op { return clientv3.OpPut(key, string(config.JSON)) })
	if err != nil {
		return nil, fmt.Errorf("write the service config of %q: %w", config.Service, err)
	}
	config.ModRevision, config.wholeKey = revision, ConfigPrefix+config.Service
	return &config, nil
}

// DeleteServiceConfig deletes the service config of a service, if it still is the one given.
func (d *Directory) DeleteServiceConfig(ctx context.Context, config ServiceConfig) error {
	if _, err := d.writeConfig(ctx, config, func(key string) clientv3.Op { return clientv3.OpDelete(key) }); err != nil {
		return fmt.Errorf("delete the service config of %q: %w", config.Service, err)
	}
	return nil
}

func (d *Directory) writeConfig(ctx context.Context, config ServiceConfig, write func(key string) clientv3.Op) (revision int64, err error) {
	service, err := ParseService(config.Service)
	if err != nil {
		return 0, err
	}
	key := ConfigPrefix + service
	call, cancel := context.WithTimeout(ctx, etcdkv.CallTimeout)
	defer cancel()
	done, err := d.client.Txn(call).If(clientv3.Compare(clientv3.ModRevision(key), "=", config.ModRevision)).Then(write(key)).Commit()
	switch err := etcdkv.Explain(ctx, d.client, err); {
	case err != nil:
		return 0, err
	case !done.Succeeded:
		return 0, ErrConfigChanged
	}
	return done.Header.Revision, nil
}
