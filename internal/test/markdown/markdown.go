// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package markdown runs what documents show: commands as a reader would type them, and Go as it
// stands in files that are compiled.
package markdown

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Block is a fenced block of a document.
type Block struct {
	Language string
	Text     string
	Output   string // of commands: the block "text" that follows at once, with only prose of one paragraph between
	Line     int
}

// Read returns the blocks of a document, those of the given languages alone. A document without
// any fails the test.
func Read(tb testing.TB, path string, languages ...string) []Block {
	tb.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	var blocks []Block
	for _, b := range parse(string(text)) {
		for _, language := range languages {
			if b.Language == language {
				blocks = append(blocks, b)
			}
		}
	}
	if len(blocks) == 0 {
		tb.Fatalf("%s has no block of %v", path, languages)
	}
	return blocks
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

func parse(text string) (blocks []Block) {
	end := 0
	for _, m := range fence.FindAllStringSubmatchIndex(text, -1) {
		b := Block{Language: text[m[2]:m[3]], Text: text[m[4]:m[5]], Line: 1 + strings.Count(text[:m[0]], "\n")}
		between := strings.TrimSpace(text[end:m[0]])
		end = m[1]
		if b.Language == "text" && len(blocks) > 0 && blocks[len(blocks)-1].Language == "sh" && !strings.Contains(between, "\n\n") {
			blocks[len(blocks)-1].Output = b.Text
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// CheckGo checks that a block of Go in a document stands, word for word, in one of the files, which the
// build or a test compiles.
func CheckGo(tb testing.TB, path string, b Block, files ...string) {
	tb.Helper()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		if strings.Contains(string(text), b.Text) {
			return
		}
	}
	tb.Errorf("%s:%d: not in %v:\n%s", path, b.Line, files, b.Text)
}

var varies = regexp.MustCompile(`^[0-9][0-9.]*(ns|µs|ms|s|m|h|d|B|KiB|kB|MB|MiB)([0-9].*)?$`)

// matches reports whether commands have printed what a document shows: the same words, whatever
// the space between them. Durations and sizes may differ, "..." stands for any part of a line, and on a line of
// its own for any lines. Of commands in the background the output may go on.
func matches(shown, printed string, background bool) bool {
	var pattern strings.Builder
	pattern.WriteString(`\A`)
	for line := range strings.Lines(shown) {
		words := strings.Fields(line)
		if len(words) == 1 && words[0] == "..." {
			pattern.WriteString(`(?:.*\n)*?`)
			continue
		}
		for i, word := range words {
			if varies.MatchString(word) {
				word = "..."
			}
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(word), `\.\.\.`, `.*?`)
		}
		fmt.Fprintf(&pattern, "[ \t]*%s[ \t]*\n", strings.Join(words, `[ \t]+`))
	}
	if !background {
		pattern.WriteString(`\z`)
	}
	return regexp.MustCompile(pattern.String()).MatchString(printed)
}
