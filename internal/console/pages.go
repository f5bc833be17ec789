// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

// pages are the kinds of pages that are followed.
func (c *Console) pages() []page {
	return []page{
		{"/{$}", "Services", "services", openServices},
		{"/service", "Service", "service", c.openService},
		{"/history", "History", "history", c.openHistory},
		{"/cluster", "Cluster", "cluster", openCluster},
		{"/clients", "Clients", "clients", c.openClients},
	}
}
