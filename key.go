// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import "strings"

// ParseService returns the service that a user's spelling names, without one trailing
// "/". A name that is empty or consists of slashes is an *InputError.
func ParseService(name string) (string, error) {
	service := strings.TrimSuffix(name, "/")
	if strings.Trim(service, "/") == "" {
		return "", inputError("service", name, "it names no service; give a name such as my-service or foo/bar")
	}
	return service, nil
}

// Key returns the key of a service's instance: "<service>/<id>".
func Key(service, id string) string { return service + "/" + id }

// CheckKey returns an *InputError for keys under ConfigPrefix, which hold service configs:
// no endpoint may be written there.
func CheckKey(key string) error {
	if strings.HasPrefix(key, ConfigPrefix) {
		return inputError("key", key, "keys under %q hold service configs, never endpoints; to write one, use rollcall config set SERVICE", ConfigPrefix)
	}
	return nil
}

// SplitKey splits a key at its last "/", for views of the whole store, where no service
// was asked for. A key without "/" has no service. See also [Instance.ID].
func SplitKey(key string) (service, id string) {
	i := strings.LastIndexByte(key, '/')
	if i < 0 {
		return "", key
	}
	return key[:i], key[i+1:]
}
