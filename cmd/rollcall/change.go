// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
)

// change writes to all keys that the names select, or to none.
func (a *app) change(ctx context.Context, client *clientv3.Client, service string, names []string, check edit.Check,
	write func(edit.Key) (clientv3.Op, error)) (edit.Change, error) {
	dir, err := rollcall.SharedDirectory(client)
	if err != nil {
		return edit.Change{}, err
	}
	done, err := edit.Apply(ctx, dir, service, names, check, write)
	return done, notFound(ctx, client, err)
}

// notFound adds the way out, and an exit code, to the error for a name that selects no key.
func notFound(ctx context.Context, client *clientv3.Client, err error) error {
	var missing *edit.NotFoundError
	switch {
	case errors.As(err, &missing) && missing.NoService:
		return fail(exitNotFound, "%w%s; see rollcall ls", err, likeServices(ctx, client, missing.Service))
	case missing != nil:
		return fail(exitNotFound, "%w%s; see %s", err, didYouMean(missing.Name, missing.IDs), shellLineWith("rollcall get", missing.Service))
	}
	return err
}

// checkNames checks the names of a service and of its endpoints.
func checkNames(service string, names []string) (string, error) {
	service, err := rollcall.ParseService(service)
	if err == nil && slices.Contains(names, "") {
		err = fail(exitUsage, "the id is empty; see %s", shellLineWith("rollcall get", service))
	}
	return service, err
}
