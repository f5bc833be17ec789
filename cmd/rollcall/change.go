// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
)

// change writes to all keys that are found; see edit.Apply.
func change(ctx context.Context, client *clientv3.Client, service string, find edit.Finder, check edit.Check, write edit.Write) (edit.Change, error) {
	dir, err := rollcall.SharedDirectory(client)
	if err != nil {
		return edit.Change{}, err
	}
	done, err := edit.Apply(ctx, dir, service, find, check, write)
	return done, notFound(ctx, client, err)
}

// sayDivided tells of a change that was too much for one transaction.
func (a *app) sayDivided(transactions int) {
	if transactions > 1 {
		a.say("it took %d transactions, so that clients may have seen a part of it first", transactions)
	}
}

// notFound adds the way out, and an exit code, to the error where no key was found.
func notFound(ctx context.Context, client *clientv3.Client, err error) error {
	var missing *edit.NotFoundError
	if !errors.As(err, &missing) {
		return err
	}
	if missing.Service == "" {
		return fail(exitNotFound, "%w%s; see rollcall ls", err, selectorHint(missing.Selector))
	}
	return fail(exitNotFound, "%w%s, or %s if it has gone", err, nearMiss(ctx, client, missing), pastOf(missing))
}

// nearMiss returns hints: what else a name that is not found may stand for, and the command that shows what there is.
func nearMiss(ctx context.Context, client *clientv3.Client, missing *edit.NotFoundError) string {
	if missing.NoService {
		return likeServices(ctx, client, missing.Service) + "; see rollcall ls"
	}
	hint := didYouMean(missing.Name, missing.IDs)
	id, isKey := strings.CutPrefix(missing.Name, missing.Service+"/")
	switch {
	case missing.Name == "":
		hint = selectorHint(missing.Selector)
	case isKey:
		hint = "; did you mean " + id + "?"
	case hint == "" && strings.Contains(missing.Name, "="):
		hint = "; did you mean --selector " + missing.Name + "?"
	}
	return hint + "; see " + shellLineWith("rollcall get", missing.Service)
}

// pastOf is the command that shows what became of what is not found.
func pastOf(missing *edit.NotFoundError) string {
	switch {
	case missing.Name != "":
		return shellLineWith("rollcall history", missing.Service, missing.Name)
	case missing.Selector != "":
		return shellLineWith("rollcall history", missing.Service) + " with that selector"
	}
	return shellLineWith("rollcall history", missing.Service)
}

// checkNames checks the names of a service and of its endpoints.
func checkNames(service string, names []string) (string, error) {
	service, err := rollcall.ParseService(service)
	if err == nil && slices.Contains(names, "") {
		err = fail(exitUsage, "the id is empty; see %s", shellLineWith("rollcall get", service))
	}
	return service, err
}
