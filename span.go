// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import clientv3 "go.etcd.io/etcd/client/v3"

// span is a range of keys as etcd has it: from key up to, not including, end. An
// empty end is the one key; "\x00" is all from key on.
type span struct{ key, end string }

func prefixSpan(prefix string) span {
	if prefix == "" {
		return span{key: "\x00", end: "\x00"}
	}
	return span{key: prefix, end: clientv3.GetPrefixRangeEnd(prefix)}
}

func keySpan(key string) span { return span{key: key} }

// options returns the range's end, where there is one, before further options.
func (s span) options(more ...clientv3.OpOption) []clientv3.OpOption {
	if s.end == "" {
		return more
	}
	return append([]clientv3.OpOption{clientv3.WithRange(s.end)}, more...)
}
