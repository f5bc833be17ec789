// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

const (
	leastTimeout    = 500 * time.Millisecond
	tripsPerTimeout = 5 // connection, TLS, login and the call itself
)

var clientChecks = []check{
	{"client-proxy", Warning, "gRPC sends calls through the proxy, for most addresses; few proxies let HTTP/2 to such ports through, and calls fail with odd errors.",
		"Add the addresses to NO_PROXY, or unset the variable for programs that call these services.", proxied},
	{"client-grpc-variable", Note, "It changes how gRPC behaves in every program that is started with it.",
		"Unset it, unless you know why it is there.", grpcVariables},
	{"client-variable-ignored", Note, "etcdctl and Rollcall act differently: they may even talk to different clusters.",
		"Unset it, or set both to the same.", ignoredVariables},
	{"client-timeout-short", Warning, "Commands give up while etcd is about to answer.",
		"Give a longer --dial-timeout.", shortTimeout},
	{"client-endpoint-repeated", Note, "It looks like more endpoints than there are: when the member fails, fewer are left than the list says.",
		"Name each member once.", repeatedEndpoints},
	{"client-one-endpoint", Note, "When that member fails the client has nowhere to go, although etcd still works.",
		"Name all members in --endpoints, wherever it is set.", oneEndpoint},
}

// proxied finds addresses that gRPC reaches by a proxy: it decides as Go does for https.
func proxied(f *Facts) []Finding {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
		value := f.Client.Getenv(name)
		if value == "" {
			continue
		}
		no := f.Client.Getenv("NO_PROXY")
		if no == "" {
			no = f.Client.Getenv("no_proxy")
		}
		proxy := (&httpproxy.Config{HTTPSProxy: value, NoProxy: no}).ProxyFunc()
		var through []string
		seen := make(map[string]bool)
		for _, s := range f.Services {
			for _, row := range s.where(usable) {
				to, err := proxy(&url.URL{Scheme: "https", Host: row.Addr})
				if (err != nil || to != nil) && !seen[row.Addr] {
					seen[row.Addr] = true
					through = append(through, row.Addr)
				}
			}
		}
		if len(through) > 0 {
			return []Finding{{What: fmt.Sprintf("%s sends gRPC calls to %s through a proxy: %s", name, plural.Count(len(through), "address", "addresses"), named(through))}}
		}
	}
	return nil
}

// grpcNames are variables by which gRPC acts differently, in Go or by its C core, as Python has it.
var grpcNames = []string{"GRPC_DNS_RESOLVER", "GRPC_ENABLE_TXT_SERVICE_CONFIG", "GRPC_ENFORCE_ALPN_ENABLED", "GRPC_EXPERIMENTAL_PF_WEIGHTED_SHUFFLING",
	"GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY", "GRPC_EXPERIMENTAL_XDS_DUALSTACK_ENDPOINTS", "GRPC_GO_EXPERIMENTAL_CASE_SENSITIVE_BALANCER_REGISTRIES",
	"GRPC_GO_EXPERIMENTAL_ENABLE_8KB_DEFAULT_HEADER_LIST_SIZE", "GRPC_GO_IGNORE_TXT_ERRORS", "GRPC_POLL_STRATEGY", "GRPC_RING_HASH_CAP",
	"GRPC_SSL_CIPHER_SUITES", "GRPC_XDS_ENDPOINT_HASH_KEY_BACKWARD_COMPAT", "grpc_proxy"}

func grpcVariables(f *Facts) []Finding {
	names := slices.DeleteFunc(slices.Clone(grpcNames), func(name string) bool { return f.Client.Getenv(name) == "" })
	if len(names) == 0 {
		return nil
	}
	return []Finding{{What: "the environment changes what gRPC does: " + strings.Join(names, ", "), Commands: unset(names)}}
}

func ignoredVariables(f *Facts) []Finding {
	var ignored, names []string
	for _, v := range f.Client.Variables {
		theirs, ours := f.Client.Getenv(v.Etcdctl), f.Client.Getenv(v.Rollcall)
		if theirs != "" && ours != "" && theirs != ours {
			ignored, names = append(ignored, fmt.Sprintf("%s (%s wins)", v.Etcdctl, v.Rollcall)), append(names, v.Etcdctl)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []Finding{{What: "set for etcdctl, and ignored: " + strings.Join(ignored, ", "), Commands: unset(names)}}
}

func unset(names []string) [][]string { return [][]string{append([]string{"unset"}, names...)} }

func shortTimeout(f *Facts) []Finding {
	latency := f.latency()
	if f.Client.DialTimeout >= max(leastTimeout, tripsPerTimeout*latency) {
		return nil
	}
	return []Finding{{What: fmt.Sprintf("--dial-timeout is %v, and etcd takes %v to answer", f.Client.DialTimeout, latency.Round(100*time.Microsecond))}}
}

func repeatedEndpoints(f *Facts) (found []Finding) {
	first := make(map[string]string) // by host or member: the endpoint
	for _, endpoint := range f.Client.Endpoints {
		names := []string{cluster.HostOf(endpoint)}
		for _, a := range f.Cluster.Asked {
			if cluster.HostOf(a.Endpoint) == cluster.HostOf(endpoint) && a.Member != "" {
				names = append(names, a.Member)
			}
		}
		for _, name := range names {
			if other := first[name]; other != "" {
				found = append(found, Finding{Member: endpoint, What: fmt.Sprintf("etcd endpoints %q and %q lead to the same member", other, endpoint)})
				break
			}
			first[name] = endpoint
		}
	}
	return found
}

func oneEndpoint(f *Facts) []Finding {
	if len(f.Client.Endpoints) != 1 || len(f.Cluster.Members) < 2 {
		return nil
	}
	var urls []string
	for _, m := range f.Cluster.Members {
		urls = append(urls, m.ClientURLs...)
	}
	return []Finding{{What: fmt.Sprintf("etcd has %d members, and the client is given one endpoint, %s", len(f.Cluster.Members), f.Client.Endpoints[0]),
		Commands: [][]string{{"export", "ROLLCALL_ENDPOINTS=" + strings.Join(urls, ",")}}}}
}
