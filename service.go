// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import "strings"

// ParseService returns the service that a user's spelling names: one trailing
// "/" is dropped, everything else is kept, since etcd's keys may hold anything.
// A name that is empty or made of slashes alone is an *InputError.
func ParseService(name string) (string, error) {
	service := strings.TrimSuffix(name, "/")
	if strings.Trim(service, "/") == "" {
		return "", inputError("service", name, "it names no service; give a name such as my-service or foo/bar")
	}
	return service, nil
}

// Key returns the key of a service's instance: "<service>/<id>".
func Key(service, id string) string { return service + "/" + id }

// CheckKey reports whether an endpoint may be written to a key. Keys under ConfigPrefix hold
// service configs: an *InputError.
func CheckKey(key string) error {
	if strings.HasPrefix(key, ConfigPrefix) {
		return inputError("key", key, "keys under %q hold service configs, never endpoints; to write one, use rollcall config set SERVICE", ConfigPrefix)
	}
	return nil
}

// SplitKey splits a key at its last "/", for views of the whole tree, where no
// service was asked for. Both parts are empty-safe: a key without "/" has no service.
func SplitKey(key string) (service, id string) {
	i := strings.LastIndexByte(key, '/')
	if i < 0 {
		return "", key
	}
	return key[:i], key[i+1:]
}
