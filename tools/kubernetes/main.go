// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command kubernetes checks manifests: it decodes each document of the files that it is given by
// Kubernetes' own types, and refuses fields that these do not have.
package main

import (
	"bytes"
	"fmt"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// kinds are those that may be in a manifest.
var kinds = map[string]func() any{
	"v1 ConfigMap":                       func() any { return new(corev1.ConfigMap) },
	"v1 Secret":                          func() any { return new(corev1.Secret) },
	"v1 Service":                         func() any { return new(corev1.Service) },
	"v1 Pod":                             func() any { return new(corev1.Pod) },
	"apps/v1 Deployment":                 func() any { return new(appsv1.Deployment) },
	"apps/v1 DaemonSet":                  func() any { return new(appsv1.DaemonSet) },
	"policy/v1 PodDisruptionBudget":      func() any { return new(policyv1.PodDisruptionBudget) },
	"networking.k8s.io/v1 NetworkPolicy": func() any { return new(networkingv1.NetworkPolicy) },
}

func main() {
	failed := len(os.Args) < 2
	for _, path := range os.Args[1:] {
		if err := check(path); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

// check checks a file, or standard input for "-".
func check(path string) error {
	if path == "-" {
		path = "/dev/stdin"
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for i, document := range bytes.Split(append([]byte("\n"), text...), []byte("\n---\n")) {
		if err := checkDocument(document); err != nil {
			return fmt.Errorf("document %d: %w", i+1, err)
		}
	}
	return nil
}

func checkDocument(text []byte) error {
	var meta struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
	}
	if err := yaml.Unmarshal(text, &meta); err != nil {
		return err
	}
	kind := meta.APIVersion + " " + meta.Kind
	object, ok := kinds[kind]
	switch {
	case !ok:
		return fmt.Errorf("kind %q is not among those that are checked", kind)
	case meta.Name == "":
		return fmt.Errorf("%s has no name", kind)
	}
	if err := yaml.UnmarshalStrict(text, object()); err != nil {
		return fmt.Errorf("%s %s: %w", kind, meta.Name, err)
	}
	return nil
}
