// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// checkEndpoints refuses endpoints that cannot be dialled, which etcd's client would try for ever.
func (a *app) checkEndpoints() error {
	endpoints, err := cleanEndpoints(a.endpoints)
	switch {
	case err != nil:
		return fail(exitUsage, "%s: %v", a.label("endpoints"), err)
	case len(endpoints) == 0:
		return fail(exitUsage, "%s: there is none; %s", a.label("endpoints"), endpointForms)
	}
	a.endpoints = endpoints
	return nil
}

// cleanEndpoints returns endpoints without blanks around them, and without empty ones, as where a list ends
// with a comma. One that cannot be dialled is an error.
func cleanEndpoints(given []string) (endpoints []string, err error) {
	for _, endpoint := range given {
		if endpoint = strings.TrimSpace(endpoint); endpoint == "" {
			continue
		}
		if err := checkEndpoint(endpoint); err != nil {
			return nil, err
		}
		endpoints = append(endpoints, endpoint)
	}
	return endpoints, nil
}

const endpointForms = "want HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix://PATH"

func checkEndpoint(endpoint string) error {
	problem := endpointProblem(endpoint)
	if problem == "" {
		return nil
	}
	if _, host, found := strings.Cut(endpoint, "@"); found { // after a password, perhaps
		endpoint = "...@" + host
	}
	return fmt.Errorf("%q is not an endpoint: %s; %s", endpoint, problem, endpointForms)
}

// endpointProblem returns why etcd's client cannot dial an endpoint, "" if it can.
func endpointProblem(endpoint string) string {
	for _, scheme := range []string{"unix:", "unixs:"} {
		if path, found := strings.CutPrefix(endpoint, scheme); found {
			if strings.Trim(path, "/") == "" {
				return "the path is missing"
			}
			return ""
		}
	}
	address := endpoint
	if strings.Contains(endpoint, "://") {
		u, err := url.Parse(endpoint)
		switch {
		case err != nil:
			return err.(*url.Error).Err.Error()
		case u.Scheme != "http" && u.Scheme != "https":
			return fmt.Sprintf("unknown scheme %q", u.Scheme)
		}
		address = u.Host // all that etcd's client looks at
	}
	switch {
	case strings.Contains(endpoint, "@"):
		return "a name goes into --user, its password into --password-file"
	case strings.ContainsAny(address, "; "):
		return "endpoints are separated by commas"
	case strings.Contains(address, "%"):
		return "etcd's client knows no zones of addresses"
	case strings.Count(address, ":") > 1 && !strings.HasPrefix(address, "["):
		return "there are too many colons; an IPv6 address goes in brackets, as in [::1]:2379"
	}
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil && strings.HasPrefix(address, "/"):
		return "it is a path"
	case err != nil:
		return err.(*net.AddrError).Err
	case strings.Contains(host, "/"):
		return fmt.Sprintf("%q is not a host", host)
	}
	if n, err := net.LookupPort("tcp", port); err != nil || n == 0 {
		return fmt.Sprintf("%q is not a port", port)
	}
	return ""
}
