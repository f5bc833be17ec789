// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/rollcall-grpc/rollcall"
)

// serverListenerPrefix and the address that a gRPC server listens at are the name of its
// Listener: see server_listener_resource_name_template in gRFC A36.
const serverListenerPrefix = "grpc/server?xds.resource.listening_address="

const twoSelectors = `it has two selectors; use one, such as ";version=v2&zone=eu-1"`

// resourceName is what a client asks for.
type resourceName struct {
	text      string // as the client wrote it
	authority *string
	service   string
	selector  rollcall.Selector
	listening string // of a server's Listener: the address that it listens at
}

// ParseName reads the name of a service as an xDS client asks for it, with the selector in it:
// "foo/bar/my-service;zone=eu-1". The target is "xds:///" and the name. Errors are
// *rollcall.InputError.
func ParseName(name string) (service string, selector rollcall.Selector, err error) {
	n, err := parseName(listeners, name)
	if err == nil && n.listening != "" {
		err = nameError(name, "it is that of a server's Listener, not of a service")
	}
	return n.service, n.selector, err
}

// parseName reads the name of a resource: "foo/bar/my-service", with a selector
// "foo/bar/my-service?zone=eu-1", or either as
// "xdstp://authority/envoy.config.listener.v3.Listener/foo/bar/my-service?zone=eu-1". The "?" may
// be written as "%3F", or as ";", the only form that all clients keep in a target. Errors are
// *rollcall.InputError.
func parseName(k *kind, text string) (n resourceName, err error) {
	n.text = text
	if unescaped, err := url.PathUnescape(text); err == nil && !utf8.ValidString(unescaped) {
		return n, nameError(text, "it is not UTF-8")
	}
	path, query := text, ""
	if rest, ok := strings.CutPrefix(text, "xdstp:"); ok {
		if n.authority, path, query, err = parseFederated(k, rest); err != nil {
			return n, nameError(text, err.Error())
		}
	}
	if listening, ok := strings.CutPrefix(path, serverListenerPrefix); ok && k == listeners {
		n.listening = listening
		return n, nil
	}
	for _, mark := range []string{"?", "%3F", "%3f", ";"} {
		before, after, ok := strings.Cut(path, mark)
		if !ok || mark == ";" && !strings.Contains(after, "=") {
			continue
		}
		if query != "" {
			return n, nameError(text, twoSelectors)
		}
		path, query = before, after
	}
	if strings.Contains(query, ";") {
		return n, nameError(text, twoSelectors)
	}
	if n.selector, err = rollcall.ParseSelector(query); err != nil {
		return n, nameError(text, err.Error())
	}
	if n.service, err = rollcall.ParseService(strings.TrimPrefix(path, "/")); err != nil {
		return n, nameError(text, "it names no service; a target is xds:///my-service")
	}
	return n, nil
}

// parseFederated reads what follows "xdstp:".
func parseFederated(k *kind, rest string) (authority *string, path, query string, err error) {
	u, err := url.Parse(rest)
	if err != nil {
		return nil, "", "", err
	}
	typeName, id, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if typeName != k.name {
		return nil, "", "", fmt.Errorf("it is of type %q, asked for as %q", typeName, k.name)
	}
	return &u.Host, id, u.RawQuery, nil
}

// as returns the name of the same service's resource of another kind. Those of a federated name
// are federated too: a client asks the authority of a name for it.
func (n resourceName) as(k *kind) string {
	if n.authority == nil {
		return n.text
	}
	u := url.URL{Host: *n.authority, Path: "/" + k.name + "/" + n.service, RawQuery: n.selector.String()}
	return "xdstp:" + u.String()
}

func nameError(text, reason string) error {
	return &rollcall.InputError{Field: "resource name", Value: text, Reason: reason}
}
