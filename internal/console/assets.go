// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed assets/*.js assets/*.css assets/*.svg
var assetFiles embed.FS

type asset struct {
	plain, zipped []byte
	etag          string
}

// assets serves the embedded files, which browsers keep and ask for anew when they have changed.
func assets() http.Handler {
	files := make(map[string]asset)
	entries, _ := assetFiles.ReadDir("assets") // they are in the program
	for _, entry := range entries {
		data, _ := assetFiles.ReadFile("assets/" + entry.Name())
		sum := sha256.Sum256(data)
		files[entry.Name()] = asset{data, zip(data), `"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/assets/")
		file, ok := files[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", file.etag)
		if r.Header.Get("If-None-Match") == file.etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
		writeZipped(w, r, http.StatusOK, file.plain, func() []byte { return file.zipped })
	})
}

// writeZipped answers with data, compressed if the browser can read that.
func writeZipped(w http.ResponseWriter, r *http.Request, status int, data []byte, zipped func() []byte) {
	w.Header().Set("Vary", "Accept-Encoding")
	if len(data) > 1000 && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		data = zipped()
	}
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

func zip(data []byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is valid
	_, _ = z.Write(data)
	_ = z.Close()
	return b.Bytes()
}
