// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package etcdkv reads and watches ranges of etcd's keys: watches that share a
// stream, lists in pages or streams, calls with a deadline, and errors that say why etcd did not answer.
package etcdkv
