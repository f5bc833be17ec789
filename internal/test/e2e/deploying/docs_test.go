// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package deploying_test

import (
	"regexp"
	"strings"
	"testing"
)

// rollcall knows the commands that the documents show, in blocks and in text.
func TestDocumentedCommands(t *testing.T) {
	for document, least := range map[string]int{"docs/agent.md": 8, "docs/kubernetes.md": 7} {
		text := read(t, document)
		var calls []string
		for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(text, -1) {
			for _, call := range regexp.MustCompile(`(?m)^(?:sudo )?rollcall ([^#>\n]*)`).FindAllStringSubmatch(block[1], -1) {
				calls = append(calls, call[1])
			}
		}
		for _, call := range regexp.MustCompile("`rollcall\\s([^`]*)`").FindAllStringSubmatch(text, -1) {
			call, _, _ := strings.Cut(strings.ReplaceAll(call[1], "\n", " "), " -- ") // what follows is another command
			calls = append(calls, strings.TrimSuffix(call, " --help"))
		}
		if len(calls) < least {
			t.Errorf("%s: found the calls %q, want %d at least", document, calls, least)
		}
		for _, call := range calls {
			checkCall(t, document, strings.Fields(call))
		}
	}
}

// The services files in the documentation are valid, and the errors are as it says.
func TestDocumentedServices(t *testing.T) {
	text := read(t, "docs/agent.md")
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(text)
	if block == nil {
		t.Fatal("docs/agent.md has no services file")
	}
	if out, err := output(t, rollcall(t), "agent", "validate", "-f", written(t, "services.yaml", block[1])); err != nil || !strings.Contains(out, "is valid: 3 endpoints") {
		t.Errorf("got %q, %v", out, err)
	}
	wrong := written(t, "services.yaml", strings.Replace(block[1], "  interval: 2s", "  ttl: '1'", 1))
	out, err := output(t, rollcall(t), "agent", "validate", "-f", wrong)
	_, message, _ := strings.Cut(strings.TrimSpace(out), "services.yaml: ")
	if err == nil || !strings.Contains(strings.ReplaceAll(text, "\n", " "), "`services.yaml: "+message+"`") {
		t.Errorf("docs/agent.md does not have the message %q", message)
	}
	help, err := output(t, rollcall(t), "agent", "--help")
	if err != nil {
		t.Fatal(err)
	}
	_, sample, _ := strings.Cut(help, "The file is YAML:\n")
	sample, _, _ = strings.Cut(sample, "\nThe file is read again")
	if out, err := output(t, rollcall(t), "agent", "validate", "-f", written(t, "services.yaml", sample)); err != nil || !strings.Contains(out, "is valid: 1 endpoint") {
		t.Errorf("the sample of agent --help: got %q, %v", out, err)
	}
}
