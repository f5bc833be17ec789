// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxSuggestions bounds how many names are suggested.
const maxSuggestions = 3

// didYouMean returns "; did you mean ...?" with those of the known names that are like a name, or "".
func didYouMean(name string, known []string) string {
	like := similar(name, known)
	if len(like) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(like, " or ") + "?"
}

// likeServices is didYouMean for a service that etcd does not have; "" as well where the user may not read all keys.
func likeServices(ctx context.Context, client *clientv3.Client, service string) string {
	keys, _ := keysUnder(ctx, client, "")
	return likeService(service, keys)
}

func likeService(service string, keys []string) string {
	if name, ok := strings.CutPrefix(service, "etcd:///"); ok {
		return "; did you mean " + name + ", without etcd:///?"
	}
	return didYouMean(service, serviceNames(keys))
}

// sayLike says which services are like some that have no key, where there are any. It is for commands that go on, and waits
// for etcd as long as their calls do.
func (a *app) sayLike(ctx context.Context, client *clientv3.Client, services ...string) {
	if len(services) == 0 {
		return
	}
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	keys, _ := keysUnder(ctx, client, "")
	for _, service := range services {
		if hint := likeService(service, keys); hint != "" {
			a.say("service %q has no key%s", service, hint)
		}
	}
}

// similar returns the known names that somebody who typed name may have meant, the most similar first: those
// that are a few typing errors away, that begin with it, or that end in it after a "/".
func similar(name string, known []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var found []candidate
	most := 1 + utf8.RuneCountInString(name)/4
	for _, other := range known {
		distance := typingErrors(strings.ToLower(name), strings.ToLower(other))
		switch {
		case other == name || other == "":
			continue
		case distance <= min(most, 3):
		case len(name) > 1 && (strings.HasPrefix(other, name) || strings.HasSuffix(other, "/"+name)):
		default:
			continue
		}
		found = append(found, candidate{other, distance})
	}
	slices.SortStableFunc(found, func(x, y candidate) int { return x.distance - y.distance })
	var names []string
	for _, c := range found[:min(len(found), maxSuggestions)] {
		names = append(names, c.name)
	}
	return names
}

// typingErrors returns how many characters have to be inserted, removed, replaced or swapped with the next
// one to make b of a.
func typingErrors(a, b string) int {
	from, to := []rune(a), []rune(b)
	if d := len(from) - len(to); d > 3 || d < -3 {
		return 4 // it is not alike; the exact number does not matter
	}
	var before, previous []int // the two rows above
	for i := 0; i <= len(from); i++ {
		row := make([]int, len(to)+1)
		for j := range row {
			switch {
			case i == 0 || j == 0:
				row[j] = i + j
			case from[i-1] == to[j-1]:
				row[j] = previous[j-1]
			default:
				row[j] = 1 + min(previous[j-1], previous[j], row[j-1])
				if i > 1 && j > 1 && from[i-1] == to[j-2] && from[i-2] == to[j-1] {
					row[j] = min(row[j], 1+before[j-2])
				}
			}
		}
		before, previous = previous, row
	}
	return previous[len(to)]
}
