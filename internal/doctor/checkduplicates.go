// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

func duplicates(f *Facts) []Finding {
	return f.eachService(func(s Service) (found []Finding) {
		byAddr := make(map[string][]*inventory.Instance)
		for _, row := range s.where(usable) {
			byAddr[row.Addr] = append(byAddr[row.Addr], row)
		}
		for _, row := range s.Rows { // in the order of keys
			if same := byAddr[row.Addr]; len(same) > 1 && same[0] == row {
				newest := slices.MinFunc(same, func(a, b *inventory.Instance) int { // as Instance.NewerThan has it
					return cmp.Or(cmp.Compare(b.CreateRevision, a.CreateRevision), strings.Compare(a.Key, b.Key))
				})
				about := func(row *inventory.Instance) string {
					if row == newest {
						return leaseOf(row) + ", the newest"
					}
					return leaseOf(row)
				}
				finding := ofService(s.Name, same, fmt.Sprintf("%%s have the address %s", escapePercent(row.Addr)), about)
				finding.Commands = calls("rollcall get", s.Name)
				found = append(found, finding)
			}
		}
		return found
	})
}

func duplicateIDs(f *Facts) []Finding {
	return f.eachService(func(s Service) []Finding {
		rows := s.where(func(row *inventory.Instance) bool { return f.Former[row.Key] != "" && !f.Changed[row.Key] })
		if len(rows) == 0 {
			return nil
		}
		finding := ofService(s.Name, rows, "%s had another lease before, which has no key left and is still renewed", func(row *inventory.Instance) string {
			return fmt.Sprintf("lease %s, before that %s", row.Lease, f.Former[row.Key])
		})
		finding.Commands = calls("rollcall history", s.Name)
		return []Finding{finding}
	})
}
