// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests Rollcall as its users meet it: on real etcd processes and with real
// gRPC servers, beside etcd's own naming package and etcdctl. It has no code of its own.
package e2e
