// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package doctor finds what is wrong with an etcd cluster, with what services have stored in it, and with
// the settings of whoever asks, before it hurts. Facts are gathered once; each check is a function of
// them alone. docs/doctor.md explains every check.
//
// # Concurrency
//
// Gather runs goroutines that it joins. Facts are read by Diagnose, which changes nothing.
package doctor
