// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser_test

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chromedp/cdproto/page"
)

// TestScreenshots writes the pictures of docs/console.md.
func TestScreenshots(t *testing.T) {
	if !*update {
		t.Skip("only with -update")
	}
	s, pages := newShowcase(t)
	b := s.open("/")
	for _, picture := range []struct {
		file, page, scheme string
		width, height      int64
	}{
		{"services-light", "services", "light", 1280, 760},
		{"services-dark", "services", "dark", 1280, 760},
		{"service-light", "service", "light", 1280, 1180},
		{"service-dark", "service", "dark", 1280, 1180},
		{"service-phone", "service", "light", 390, 844},
		{"services-phone", "services", "dark", 390, 844},
		{"cluster-light", "cluster", "light", 1280, 480},
		{"cluster-dark", "cluster", "dark", 1280, 480},
		{"cluster-phone", "cluster", "light", 390, 844},
		{"history-light", "history", "light", 1280, 760},
	} {
		b.screen(picture.width, picture.height)
		b.scheme(picture.scheme)
		b.visit(pages[picture.page])
		if picture.page == "service" {
			b.await("the leases are known", "document.querySelector('#rows').innerText.includes('/300s')")
		}
		shot := call(b, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng})
		small, err := reduced(shot.Data)
		if err == nil {
			err = os.WriteFile(filepath.Join("../../../../docs/console", picture.file+".png"), small, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// reduced returns a picture with 256 of its colours, the most frequent and those unlike them. It
// is a third as large.
func reduced(data []byte) ([]byte, error) {
	from, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	uses := make(map[color.Color]int)
	for y := range from.Bounds().Dy() {
		for x := range from.Bounds().Dx() {
			uses[from.At(x, y)]++
		}
	}
	var palette color.Palette
	for _, c := range slices.SortedFunc(maps.Keys(uses), func(a, b color.Color) int { return cmp.Compare(uses[b], uses[a]) }) {
		if len(palette) < 256 && (len(palette) == 0 || distance(c, palette.Convert(c)) > 24) {
			palette = append(palette, c)
		}
	}
	to := image.NewPaletted(from.Bounds(), palette)
	nearest := make(map[color.Color]uint8)
	for y := range from.Bounds().Dy() {
		for x := range from.Bounds().Dx() {
			c := from.At(x, y)
			index, known := nearest[c]
			if !known {
				index = uint8(palette.Index(c))
				nearest[c] = index
			}
			to.SetColorIndex(x, y, index)
		}
	}
	var out bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, to)
	return out.Bytes(), err
}

// distance is how much the channels of two colours differ, of 256 each.
func distance(a, b color.Color) (sum int) {
	ar, ag, ab, _ := a.RGBA()
	br, bg, bb, _ := b.RGBA()
	for _, pair := range [][2]uint32{{ar, br}, {ag, bg}, {ab, bb}} {
		sum += int(max(pair[0], pair[1])-min(pair[0], pair[1])) >> 8
	}
	return sum
}
