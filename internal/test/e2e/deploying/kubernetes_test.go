// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package deploying_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// object is what the tests read of a manifest.
type object struct {
	Data map[string]string
	Spec struct {
		Selector struct{ MatchLabels map[string]string }
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				AutomountServiceAccountToken  *bool
				TerminationGracePeriodSeconds int
				SecurityContext               struct{ RunAsNonRoot bool }
				InitContainers, Containers    []container
			}
		}
	}
}

type container struct {
	Name, RestartPolicy string
	Args                []string
	Env                 []struct {
		Name      string
		ValueFrom struct{ FieldRef struct{ FieldPath string } }
	}
	Ports     []struct{ Name string }
	Lifecycle struct {
		PreStop struct {
			Sleep struct{ Seconds int }
			Exec  struct{ Command []string }
		}
	}
	LivenessProbe, ReadinessProbe struct {
		HTTPGet struct{ Path, Port string } `json:"httpGet"`
		Exec    struct{ Command []string }
	}
	SecurityContext struct {
		AllowPrivilegeEscalation *bool
		ReadOnlyRootFilesystem   bool
		Capabilities             struct{ Drop []string }
	}
}

func objects(t *testing.T, name string) (all []object) {
	t.Helper()
	for document := range strings.SplitSeq(read(t, name), "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

var names = []string{"sidecar", "agent", "serve", "network-policy"}

func manifest(name string) string { return "deploy/kubernetes/" + name + ".yaml" }

// The manifests, and those in the documentation, are of Kubernetes' own types, with no field that these
// do not have.
func TestManifestsAreKubernetes(t *testing.T) {
	check := build(t, "check", root+"tools/kubernetes", ".")
	files, err := filepath.Glob(root + manifest("*"))
	if err != nil || len(files) != len(names) {
		t.Fatalf("found %v, %v, want %v", files, err, names)
	}
	for i, block := range regexp.MustCompile("(?s)```yaml\n(apiVersion.*?)```").FindAllStringSubmatch(read(t, "docs/kubernetes.md"), -1) {
		files = append(files, written(t, fmt.Sprintf("block%d.yaml", i), block[1]))
	}
	if _, err := output(t, check, files...); err != nil {
		t.Error(err)
	}
	wrong := written(t, "wrong.yaml", strings.Replace(read(t, manifest("serve")), "replicas:", "replikas:", 1))
	if out, err := output(t, check, wrong); err == nil || !strings.Contains(out, "replikas") {
		t.Errorf("got %q, %v, want a complaint about the field", out, err)
	}
}

// The pods have no rights that they do not need, and rollcall knows the commands and flags that they use.
func TestManifestsCallRollcall(t *testing.T) {
	calls := 0
	for _, name := range names {
		for _, o := range objects(t, manifest(name)) {
			p := o.Spec.Template.Spec
			if p.Containers == nil {
				continue
			}
			if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken || !p.SecurityContext.RunAsNonRoot {
				t.Errorf("%s: the pod may ask the API server, or runs as root", name)
			}
			for key, value := range o.Spec.Selector.MatchLabels {
				if o.Spec.Template.Metadata.Labels[key] != value {
					t.Errorf("%s: the selector does not match the pods", name)
				}
			}
			for _, c := range append(p.InitContainers, p.Containers...) {
				s := c.SecurityContext
				if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
					t.Errorf("%s: container %s has rights that it does not need", name, c.Name)
				}
				if len(c.Args) > 0 {
					calls++
					checkCall(t, name, c.Args)
				}
				for _, command := range [][]string{c.Lifecycle.PreStop.Exec.Command, c.LivenessProbe.Exec.Command} {
					if len(command) > 0 {
						calls++
						_, call, _ := strings.Cut(command[len(command)-1], "rollcall ")
						call, _, _ = strings.Cut(call, " >") // what is left is for the shell
						checkCall(t, name, strings.Fields(call))
					}
				}
			}
		}
	}
	if calls != 5 {
		t.Errorf("checked %d calls of rollcall, want those of three containers, a hook and a probe", calls)
	}
}

// checkCall checks that rollcall knows a command and its flags.
func checkCall(t *testing.T, name string, args []string) {
	t.Helper()
	out, err := output(t, rollcall(t), append(slices.Clone(args), "--help")...)
	if err != nil || !strings.Contains(out, "Usage:\n  rollcall "+args[0]) {
		t.Errorf("%s: %v: %v, %s", name, args, err, out)
	}
}

// A pod with the sidecar ends in the order that docs/kubernetes.md explains, within its grace period.
func TestSidecarEnds(t *testing.T) {
	p := objects(t, manifest("sidecar"))[0].Spec.Template.Spec
	sidecar, server := p.InitContainers[0], p.Containers[0]
	if sidecar.RestartPolicy != "Always" || !slices.Contains(sidecar.Args, "--drain=0s") {
		t.Errorf("restartPolicy %q, args %v: want a sidecar that does not drain again", sidecar.RestartPolicy, sidecar.Args)
	}
	if !slices.Contains(sidecar.Args, "--addr=$(POD_IP):50051") || sidecar.Env[0].Name != "POD_IP" || sidecar.Env[0].ValueFrom.FieldRef.FieldPath != "status.podIP" {
		t.Errorf("args %v, env %v: want the pod's address", sidecar.Args, sidecar.Env)
	}
	if hook := sidecar.Lifecycle.PreStop.Exec.Command; len(hook) != 3 || hook[2] != `exec rollcall drain --force greeter "$POD_IP:50051"` {
		t.Errorf("hook %v, want one that drains the same endpoint, even if it is the last", hook)
	}
	if ready := sidecar.ReadinessProbe.HTTPGet; ready.Path != "/readyz" || ready.Port != sidecar.Ports[0].Name {
		t.Errorf("the sidecar's readiness is %+v", ready)
	}
	move := server.Lifecycle.PreStop.Sleep.Seconds
	if move < 5 || p.TerminationGracePeriodSeconds < move+20+5 {
		t.Errorf("a grace period of %d s does not leave 20 s for calls and 5 s for the sidecar after %d s for clients to move", p.TerminationGracePeriodSeconds, move)
	}
}

// The agent's file is valid, and its pod's grace period fits --drain.
func TestAgentManifest(t *testing.T) {
	all := objects(t, manifest("agent"))
	file := written(t, "services.yaml", all[0].Data["services.yaml"])
	if out, err := output(t, rollcall(t), "agent", "validate", "-f", file); err != nil || !strings.Contains(out, "3 endpoints") {
		t.Errorf("got %q, %v, want three endpoints", out, err)
	}
	p := all[1].Spec.Template.Spec
	grace := time.Duration(p.TerminationGracePeriodSeconds) * time.Second
	if drain := flagOf(t, strings.Join(p.Containers[0].Args, " "), "drain"); grace < drain+10*time.Second {
		t.Errorf("a grace period of %v does not leave 10s for etcd after --drain %v", grace, drain)
	}
}

// flagOf returns the duration that a command line gives to a flag.
func flagOf(t *testing.T, line, flag string) time.Duration {
	t.Helper()
	match := regexp.MustCompile(`--` + flag + `[= ](\S+)`).FindStringSubmatch(line)
	if match == nil {
		t.Fatalf("no --%s in %s", flag, line)
	}
	d, err := time.ParseDuration(match[1])
	if err != nil {
		t.Fatal(err)
	}
	return d
}
