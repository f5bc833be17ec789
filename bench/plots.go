// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"path"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// drawing is a plot of one metric in several scenarios, with a mark for each subject, or a line
// where the scenarios are named after a number.
type drawing struct {
	file, title, axis string
	metric            string
	scenarios         []string
	subjects          []string
	after             string // the scenario after which it is shown
	x                 string // what the scenarios' number is; "": marks, not lines
}

var plots = []drawing{
	{"lone", "A lone change: delay after the raw event, p50", "us", "more, p50", []string{"lone/1", "lone/1000", "lone/10000"}, all, "lone/10000", ""},
	{"closed", "Change after change: from the put to the state, p50", "us", "since the put, p50", []string{"closed/1", "closed/1000", "closed/10000"}, all, "closed/10000", ""},
	{"rate", "From the put to the state, p50", "ms", "p50", []string{"rate/1", "rate/10", "rate/50", "rate/250", "rate/1000", "rate/2000"}, []string{ours, theirs, raw}, "rate/2000", "changes a second"},
	{"cold", "A cold start, addresses as ids", "ms", "time", []string{"cold/1", "cold/100", "cold/1000", "cold/10000", "cold/50000"}, []string{ours, theirs, goZero, goKit, rawGet, rawStream, paged}, "cold/50000", ""},
	{"cpu", "CPU of a burst", "ms", "CPU", []string{"burst", "rolling", "round_robin"}, append(all, raw), "round_robin", ""},
	{"lag", "From the last write to the state", "ms", "lag", []string{"burst", "rolling", "round_robin"}, append(all, raw), "round_robin", ""},
	{"memory", "Heap and stacks a channel", "KiB", "memory", []string{"channels/1", "channels/100", "services"}, all, "services", ""},
	{"endpoints", "Heap and stacks an endpoint", "bytes", "memory", []string{"memory/10", "memory/100", "memory/1000", "memory/10000", "memory/100000"}, []string{ours, theirs, goZero, goKit, snapshotOnly, unkept}, "memory/100000", "endpoints"},
}

// draw draws a plot with a logarithmic axis, or two.
func (r *results) draw(d drawing, file string) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = d.title, d.x, d.axis
	p.Legend.Top, p.Legend.Left = true, d.x == ""
	low, high := math.Inf(1), math.Inf(-1)
	for i, subject := range d.subjects {
		points := r.points(d, i, subject)
		if len(points) == 0 {
			continue
		}
		for _, at := range points {
			low, high = min(low, at.Y), max(high, at.Y)
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		marks.GlyphStyle = draw.GlyphStyle{Color: plotutil.Color(i), Shape: plotutil.Shape(i), Radius: vg.Points(4)}
		line.Color = plotutil.Color(i)
		if d.x != "" {
			p.Add(line)
		}
		p.Add(marks)
		p.Legend.Add(subject, marks)
	}
	if math.IsInf(low, 0) {
		return nil // nothing was measured
	}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high))+1)
	if d.x != "" {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	} else {
		p.NominalX(d.scenarios...)
		p.X.Min, p.X.Max = -0.5, float64(len(d.scenarios))-0.5
	}
	return p.Save(8*vg.Inch, 4*vg.Inch, file)
}

// points returns where a drawing shows its i-th subject.
func (r *results) points(d drawing, i int, subject string) (points plotter.XYs) {
	for j, name := range d.scenarios {
		x := float64(j) + 0.08*(float64(i)-float64(len(d.subjects)-1)/2)
		if d.x != "" {
			x = must(strconv.ParseFloat(path.Base(name), 64))
		}
		if y := r.median(name, subject, d.metric); y > 0 && !math.IsInf(y, 0) { // nor can NaN be shown on a logarithmic axis
			points = append(points, plotter.XY{X: x, Y: y})
		}
	}
	return points
}
