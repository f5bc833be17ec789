// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"slices"

	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// serviceName is the service that a document is about.
type serviceName struct {
	Service       string `json:"service"`
	ServiceBase64 string `json:"serviceBase64,omitempty"` // where it is not UTF-8
}

func nameOf(service string) serviceName { return serviceName{service, inventory.Base64(service)} }

// keyList is the keys that a document is about.
type keyList struct {
	Keys       []string `json:"keys"`
	KeysBase64 []string `json:"keysBase64,omitempty"` // all of Keys, where one of them is not UTF-8
}

func listOf(keys []string) keyList { return keyList{append([]string{}, keys...), allBase64(keys)} }

// allBase64 returns all of some keys in base64 if one of them is not UTF-8, else nil.
func allBase64(keys []string) (all []string) {
	if slices.ContainsFunc(keys, func(key string) bool { return inventory.Base64(key) != "" }) {
		for _, key := range keys {
			all = append(all, base64.StdEncoding.EncodeToString([]byte(key)))
		}
	}
	return all
}
