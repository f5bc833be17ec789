// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests Rollcall as its users run it: with real etcd processes and real gRPC
// servers, together with etcd's naming package and etcdctl. It has only tests.
package e2e
