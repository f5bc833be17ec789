// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"fmt"
	"os"
)

// Locality is where an endpoint or a client runs, from the outermost part to the
// innermost, as in xDS. An empty part is unknown.
type Locality struct {
	Region  string
	Zone    string
	Subzone string
}

// LocalityFromEnv returns the locality that the environment names: ROLLCALL_REGION,
// ROLLCALL_ZONE and ROLLCALL_SUBZONE.
func LocalityFromEnv() Locality {
	return Locality{
		Region:  os.Getenv("ROLLCALL_REGION"),
		Zone:    os.Getenv("ROLLCALL_ZONE"),
		Subzone: os.Getenv("ROLLCALL_SUBZONE"),
	}
}

// String returns the locality in the form that gRPC's xDS uses in metrics (gRFC A78):
// {region="eu", zone="eu-1", sub_zone=""}.
func (l Locality) String() string {
	return fmt.Sprintf("{region=%q, zone=%q, sub_zone=%q}", l.Region, l.Zone, l.Subzone)
}
