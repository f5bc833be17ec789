// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"errors"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/reflector"
	"github.com/rollcall-grpc/rollcall/internal/topic"
)

// configs follows the service configs of all services by one Reflector on ConfigPrefix. Where
// the role may not read that, each service has a Reflector on its own key.
type configs struct {
	source *source

	mu       sync.Mutex              // before topic.mu
	services map[string]*configTopic // those with subscribers
	all      *configStore            // nil without subscribers
	denied   bool                    // ConfigPrefix may not be read, as far as is known
}

// configTopic is the service config of one service.
type configTopic struct {
	topic *topic.Topic[ServiceConfig]
	at    reflector.Version // where the store stood when the value was last known to be right
	own   *configStore      // nil: it is followed with all others
}

// ConfigDelivery is a subscription to a service config, which is pushed to a function.
type ConfigDelivery struct {
	configs  *configs
	service  string
	topic    *configTopic
	delivery *topic.Delivery[ServiceConfig]
}

func (c *configs) subscribe(service string, f func(*ServiceConfig, error)) *ConfigDelivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = c.newStore(etcdkv.Prefix(ConfigPrefix))
	}
	t := c.services[service]
	if t == nil {
		t = &configTopic{}
		t.topic = topic.New(topic.Options[ServiceConfig]{Reason: func() error { return c.reason(t) }})
		c.services[service] = t
		if c.denied {
			t.own = c.newStore(etcdkv.SingleKey(ConfigPrefix + service))
		} else if c.all.synced {
			c.all.publishLocked(service, t)
		}
		t.topic.RemindLater()
	}
	return &ConfigDelivery{c, service, t, t.topic.Deliver(f)}
}

// Latest returns the newest service config, delivered or not, nil before the first.
func (d *ConfigDelivery) Latest() *ServiceConfig { return d.topic.topic.Latest() }

// Err returns why there is no service config yet, as Subscription.Err does.
func (d *ConfigDelivery) Err() error { return d.topic.topic.Why() }

// Close ends the delivery, as Delivery.Close does.
func (d *ConfigDelivery) Close() {
	if d.delivery.Close() {
		d.configs.release(d.service, d.topic)
	}
}

// reason returns why nothing is known of a service config.
func (c *configs) reason(t *configTopic) error {
	c.mu.Lock()
	from := t.own
	if from == nil {
		from = c.all
	}
	c.mu.Unlock()
	if from == nil {
		return nil
	}
	return c.source.silenceOf(from.reflector)
}

// release ends and joins what is no longer needed.
func (c *configs) release(service string, t *configTopic) {
	c.mu.Lock()
	var ended []*configStore
	if t.topic.Count() == 0 && c.services[service] == t {
		delete(c.services, service)
		ended = append(ended, t.own)
		if len(c.services) == 0 {
			ended = append(ended, c.all)
			c.all = nil
		}
	}
	c.mu.Unlock()
	stopAll(ended)
	if len(ended) > 0 {
		t.topic.Close(ErrClosed) // which ends its reminders
	}
}

// close ends everything and returns what closes when deliveries under way have ended.
func (c *configs) close() (deliveries []<-chan struct{}) {
	c.mu.Lock()
	ended := []*configStore{c.all}
	services := c.services
	c.all, c.services = nil, make(map[string]*configTopic)
	for _, t := range services {
		ended = append(ended, t.own)
	}
	c.mu.Unlock()
	stopAll(ended)
	for _, t := range services {
		deliveries = append(deliveries, t.topic.Close(ErrClosed)...)
	}
	return deliveries
}

func stopAll(stores []*configStore) {
	for _, s := range stores {
		if s != nil {
			s.stop()
		}
	}
}

// followersLocked returns the services that follow a store.
func (c *configs) followersLocked(from *configStore) map[string]*configTopic {
	followers := make(map[string]*configTopic)
	if from.single != "" { // of thousands each looks at its own service alone
		if t := c.services[from.single]; t != nil && t.own == from {
			followers[from.single] = t
		}
		return followers
	}
	for service, t := range c.services {
		if c.followsLocked(t, from) {
			followers[service] = t
		}
	}
	return followers
}

func (c *configs) followsLocked(t *configTopic, from *configStore) bool {
	return t.own == from || t.own == nil && c.all == from
}

// setDeniedLocked has services followed one by one, or all together. It returns the stores to
// be stopped without the lock.
func (c *configs) setDeniedLocked(from *configStore, denied bool) (ended []*configStore) {
	if c.all != from || c.denied == denied {
		return nil
	}
	c.denied = denied
	for service, t := range c.services {
		if denied {
			t.own = c.newStore(etcdkv.SingleKey(ConfigPrefix + service))
		} else {
			ended = append(ended, t.own)
			t.own = nil
		}
	}
	return ended
}

// configStore has the service configs of a key range. It implements reflector.Store.
type configStore struct {
	configs   *configs
	single    string // the service whose config it is; "": all
	reflector *reflector.Reflector
	stop      func() // ends and joins the Reflector

	// Guarded by configs.mu.
	at      reflector.Version         // of content
	content map[string]*ServiceConfig // by service
	changed map[string]bool           // not published yet, by service
	synced  bool
}

func (c *configs) newStore(keys etcdkv.KeyRange) *configStore {
	s := &configStore{configs: c, content: make(map[string]*ServiceConfig), changed: make(map[string]bool)}
	if keys.IsSingleKey() {
		s.single = keys.Key[len(ConfigPrefix):]
	}
	s.reflector, s.stop = c.source.reflect(keys, s, true)
	return s
}

// configLocked returns the config of a service, with a nil JSON where there is none.
func (s *configStore) configLocked(service string) *ServiceConfig {
	if config := s.content[service]; config != nil {
		return config
	}
	return &ServiceConfig{Service: service}
}

// configList implements reflector.List.
type configList struct {
	store   *configStore
	content map[string]*ServiceConfig
}

// NewList implements reflector.Store.
func (s *configStore) NewList() reflector.List {
	return &configList{s, make(map[string]*ServiceConfig)}
}

// Add implements reflector.List.
func (l *configList) Add(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		config := decodeServiceConfig(kv)
		l.content[config.Service] = config
	}
}

// Replace implements reflector.List. What a member without a leader has is taken like any list:
// a config that is late does no harm.
func (l *configList) Replace(at reflector.Version, _ error) bool {
	s, c := l.store, l.store.configs
	c.mu.Lock()
	var ended []*configStore
	if s.single == "" {
		ended = c.setDeniedLocked(s, false)
	}
	s.at, s.content, s.synced = at, l.content, true
	clear(s.changed)
	for service, t := range c.followersLocked(s) {
		s.publishLocked(service, t)
	}
	c.mu.Unlock()
	stopAll(ended)
	return true
}

// publishLocked gives a service its config, unless that is what it has, or it has followed
// another store that was ahead: this one then catches up.
func (s *configStore) publishLocked(service string, t *configTopic) {
	if t.at.Epoch == s.at.Epoch && t.at.Revision > s.at.Revision {
		return
	}
	t.at = s.at
	if config := s.configLocked(service); !config.equal(t.topic.Latest()) {
		t.topic.Publish(config, true)
	}
}

// Differences implements reflector.List.
func (l *configList) Differences() map[string]reflector.Difference {
	l.store.configs.mu.Lock()
	defer l.store.configs.mu.Unlock()
	diffs := make(map[string]reflector.Difference)
	for service := range l.content {
		if was, now := l.store.content[service].summary(), l.content[service].summary(); was != now {
			diffs[ConfigPrefix+service] = reflector.Difference{Store: was, Etcd: now}
		}
	}
	for service, was := range l.store.content {
		if l.content[service] == nil {
			diffs[ConfigPrefix+service] = reflector.Difference{Store: was.summary(), Etcd: (*ServiceConfig)(nil).summary()}
		}
	}
	return diffs
}

// Apply implements reflector.Store.
func (s *configStore) Apply(events []*clientv3.Event) {
	s.configs.mu.Lock()
	defer s.configs.mu.Unlock()
	for _, ev := range events {
		config := decodeServiceConfig(ev.Kv)
		if s.changed[config.Service] = true; ev.Type == clientv3.EventTypeDelete {
			delete(s.content, config.Service)
		} else {
			s.content[config.Service] = config
		}
	}
}

// Publish implements reflector.Store.
func (s *configStore) Publish(revision int64) {
	c := s.configs
	c.mu.Lock()
	defer c.mu.Unlock()
	s.at.Revision = max(s.at.Revision, revision)
	for service := range s.changed {
		if t := c.services[service]; t != nil && c.followsLocked(t, s) {
			s.publishLocked(service, t)
		}
	}
	clear(s.changed)
}

// SetStatus implements reflector.Store.
func (s *configStore) SetStatus(stale error) {
	if stale == nil {
		return
	}
	c := s.configs
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.single == "" && errors.Is(stale, rpctypes.ErrPermissionDenied) {
		c.setDeniedLocked(s, true)
		return
	}
	for _, t := range c.followersLocked(s) {
		if t.topic.Fail(stale); errors.Is(stale, ErrClosed) {
			t.topic.Close(stale)
		}
	}
}

// Size implements reflector.Store.
func (s *configStore) Size() (keys int, modRevision int64) {
	s.configs.mu.Lock()
	defer s.configs.mu.Unlock()
	for _, config := range s.content {
		modRevision = max(modRevision, config.ModRevision)
	}
	return len(s.content), modRevision
}
