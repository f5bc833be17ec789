// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import clientv3 "go.etcd.io/etcd/client/v3"

// KeyRange is a range of keys as etcd has it: from Key up to, not including, End. An
// empty End is the one key; "\x00" is everything from Key on.
type KeyRange struct{ Key, End string }

// Prefix returns the range of all keys that start with prefix.
func Prefix(prefix string) KeyRange {
	if prefix == "" {
		return KeyRange{Key: "\x00", End: "\x00"}
	}
	return KeyRange{Key: prefix, End: clientv3.GetPrefixRangeEnd(prefix)}
}

// SingleKey returns the range that is one key.
func SingleKey(key string) KeyRange { return KeyRange{Key: key} }

// IsSingleKey reports whether the range is one key.
func (r KeyRange) IsSingleKey() bool { return r.End == "" }

// options returns the range's end, where there is one, before further options.
func (r KeyRange) options(more ...clientv3.OpOption) []clientv3.OpOption {
	if r.IsSingleKey() {
		return more
	}
	return append([]clientv3.OpOption{clientv3.WithRange(r.End)}, more...)
}
