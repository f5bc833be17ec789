// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	clientv3 "go.etcd.io/etcd/client/v3"
)

// WithAuth turns authentication on and returns clients of root and of a user without
// permissions.
func (e *Env) WithAuth() (root, user *clientv3.Client) {
	for _, name := range []string{"root", "user"} {
		_, err := e.Client.RoleAdd(e.Ctx, name)
		e.OK(err)
		_, err = e.Client.UserAdd(e.Ctx, name, "secret")
		e.OK(err)
		_, err = e.Client.UserGrantRole(e.Ctx, name, name)
		e.OK(err)
	}
	_, err := e.Client.AuthEnable(e.Ctx)
	e.OK(err)
	as := func(name string) *clientv3.Client {
		return e.clientOf(func(cfg *clientv3.Config) { cfg.Username, cfg.Password = name, "secret" })
	}
	return as("root"), as("user")
}

// Grant permits the user to read the check's target.
func (e *Env) Grant(root *clientv3.Client) {
	_, err := root.RoleGrantPermission(e.Ctx, "user", e.Target+"/", clientv3.GetPrefixRangeEnd(e.Target+"/"), clientv3.PermissionType(clientv3.PermRead))
	e.OK(err)
}
