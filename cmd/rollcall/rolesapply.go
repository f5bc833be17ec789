// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// applyRole creates the role, or adds the permissions that it lacks. It refuses to add to a role that permits more,
// unless that is one user's own or the flags say so.
func (a *app) applyRole(ctx context.Context, r role, f rolesFlags) error {
	return a.talk(ctx, func(ctx context.Context, client *clientv3.Client) error {
		if _, err := client.RoleAdd(ctx, r.Name); err != nil && !errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
			return fmt.Errorf("add role %q: %w", r.Name, err)
		}
		had, err := client.RoleGet(ctx, r.Name)
		if err != nil {
			return fmt.Errorf("read role %q: %w", r.Name, err)
		}
		more := r.beyond(had.Perm)
		if own := f.name == "" && f.to != ""; len(more) > 0 && !own && !f.extend {
			return fail(exitOther, "role %q is there already and permits more: to %s; nothing was changed, since whoever has it would be permitted both; "+
				"give another --name, or --extend to add to it", r.Name, strings.Join(more, ", to "))
		}
		for _, text := range more {
			a.say("role %q may also %s, as before; to revoke that, see etcdctl role revoke-permission", r.Name, text)
		}
		for _, p := range r.Permissions {
			if _, err := client.RoleGrantPermission(ctx, r.Name, p.Key, p.RangeEnd, p.mergedWith(had.Perm)); err != nil {
				return fmt.Errorf("grant role %q %s on %q: %w", r.Name, p.Access, p.Key, err)
			}
		}
		if r.User == "" {
			return nil
		}
		if _, err := client.UserGrantRole(ctx, r.User, r.Name); err != nil {
			if errors.Is(err, rpctypes.ErrUserNotFound) {
				return fail(exitNotFound, "--grant-to %s: etcd has no such user; role %q was created; see etcdctl user add", r.User, r.Name)
			}
			return fmt.Errorf("grant role %q to user %q: %w", r.Name, r.User, err)
		}
		return nil
	})
}

// beyond returns what permissions permit that the role does not, each as a verb and keys.
func (r role) beyond(had []*authpb.Permission) (more []string) {
	for _, q := range had {
		may := func(access string) bool {
			return slices.ContainsFunc(r.Permissions, func(p permission) bool {
				return (p.Access == access || p.Access == "readwrite") && p.includes(string(q.Key), string(q.RangeEnd))
			})
		}
		var verbs []string
		if q.PermType != authpb.WRITE && !may("read") {
			verbs = append(verbs, "read")
		}
		if q.PermType != authpb.READ && !may("write") {
			verbs = append(verbs, "write")
		}
		if len(verbs) > 0 {
			keys := refusal{key: string(q.Key), rangeEnd: string(q.RangeEnd)}
			more = append(more, strings.Join(verbs, " and ")+" "+keys.String())
		}
	}
	return more
}

// includes reports whether a permission is on all keys of a range, or on a key alone if rangeEnd is empty.
func (p permission) includes(key, rangeEnd string) bool {
	switch {
	case key < p.Key:
		return false
	case p.RangeEnd == "\x00": // all keys from p.Key on
		return true
	case p.RangeEnd == "":
		return key == p.Key && rangeEnd == ""
	case rangeEnd == "":
		return key < p.RangeEnd
	}
	return rangeEnd != "\x00" && rangeEnd <= p.RangeEnd
}

// mergedWith returns the type that includes p and the permission that a role already has on the same range, which a
// grant would replace.
func (p permission) mergedWith(had []*authpb.Permission) clientv3.PermissionType {
	writes := slices.ContainsFunc(had, func(q *authpb.Permission) bool {
		return string(q.Key) == p.Key && string(q.RangeEnd) == p.RangeEnd && q.PermType != authpb.READ
	})
	if p.Access == "readwrite" || writes {
		return clientv3.PermissionType(authpb.READWRITE)
	}
	return clientv3.PermissionType(authpb.READ)
}
