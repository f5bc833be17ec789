// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/reflector"
	"github.com/rollcall-grpc/rollcall/internal/topic"
)

func newTestConfigStore(c *configs, single string) *configStore {
	return &configStore{configs: c, single: single, content: make(map[string]*ServiceConfig), changed: make(map[string]bool), stop: func() {}}
}

// P2: a list of all service configs that was under way while a service was followed by itself
// takes nothing back, and the events after it are shown.
func TestP2ServiceConfigsNeverGoBack(t *testing.T) {
	c := &configs{services: make(map[string]*configTopic), denied: true}
	c.all = newTestConfigStore(c, "")
	svc := &configTopic{topic: topic.New(topic.Options[ServiceConfig]{Reason: func() error { return nil }}), own: newTestConfigStore(c, "svc")}
	c.services["svc"] = svc
	put := func(s *configStore, text string, revision int64) {
		s.Apply([]*clientv3.Event{{Type: clientv3.EventTypePut, Kv: &mvccpb.KeyValue{Key: []byte(ConfigPrefix + "svc"), Value: []byte(text), ModRevision: revision}}})
		s.Publish(revision)
	}
	list := func(s *configStore, text string, revision int64) reflector.List {
		l := s.NewList()
		l.Add([]*mvccpb.KeyValue{{Key: []byte(ConfigPrefix + "svc"), Value: []byte(text), ModRevision: revision}})
		return l
	}
	var shown []string
	show := func() {
		if text := string(svc.topic.Latest().JSON); len(shown) == 0 || shown[len(shown)-1] != text {
			shown = append(shown, text)
		}
	}
	single := svc.own
	list(single, "1", 1).Replace(reflector.Version{Revision: 1, Epoch: 1}, nil)
	show()
	late := list(c.all, "1", 1)
	put(single, "2", 2)
	show()
	late.Replace(reflector.Version{Revision: 1, Epoch: 1}, nil)
	show()
	put(c.all, "2", 2)
	show()
	put(c.all, "3", 3)
	show()
	put(single, "old", 4) // it is followed no more
	show()
	list(c.all, "new epoch", 1).Replace(reflector.Version{Revision: 1, Epoch: 2}, nil)
	show()
	if want := []string{"1", "2", "3", "new epoch"}; !slices.Equal(shown, want) {
		t.Errorf("shown %q, want %q", shown, want)
	}
}
