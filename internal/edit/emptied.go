// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// EmptiesError is returned where a change would leave a service without an endpoint, or without one that is serving.
type EmptiesError struct {
	Service   string
	Endpoints int      // that it has now, with those of services within it; where some stay, those that are serving
	Stay      int      // that are not serving
	Nested    []string // services within it, which lose theirs as well
	Also      []string // other services that the change must not be made to for such a reason
	To        string   // the service that they move to; "": they are removed
}

// maxNamed bounds how many services are named.
const maxNamed = 5

// Names returns the names of services as text, the first few if there are many.
func Names(services []string) string { return quoted(services, maxNamed) }

func quoted(names []string, most int) string {
	var quotes []string
	for _, name := range names[:min(len(names), most)] {
		quotes = append(quotes, strconv.Quote(name))
	}
	text := strings.Join(quotes, ", ")
	if n := len(names) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

func (e *EmptiesError) Error() string {
	if len(e.Also) > 0 {
		return e.reason() + "; the same goes for " + Names(e.Also)
	}
	return e.reason()
}

func (e *EmptiesError) reason() string {
	if e.Stay > 0 {
		return fmt.Sprintf("this removes %s of service %q: %s draining or cannot be called",
			plural.Count(e.Endpoints, "serving endpoint, the last", "serving endpoints, the last"), e.Service,
			plural.Count(e.Stay, "endpoint that stays is", "endpoints that stay are"))
	}
	verb, what, among, to, lost := "removes", fmt.Sprintf("all endpoints (%d)", e.Endpoints), "among them all", "", "it"
	if e.Endpoints == 1 {
		what, among = "the only endpoint", "which is that"
	}
	what += fmt.Sprintf(" of service %q", e.Service)
	if len(e.Nested) > 0 {
		lost = "them"
		what += fmt.Sprintf(", %s of %s", among, Names(e.Nested))
	}
	if e.To != "" {
		verb, to, lost = "moves", fmt.Sprintf(" to %q", e.To), "the old name"
	}
	return fmt.Sprintf("this %s %s%s: calls to %s will fail", verb, what, to, lost)
}
