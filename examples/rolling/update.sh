#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Rollcall Authors
# SPDX-License-Identifier: Apache-2.0

# Replaces three servers one after the other while a client calls them, and exits with what the
# client does: 1 if a call has failed. It takes an etcd (rollcall dev), and rollcall, greeter-server
# and greeter-client in the PATH (go install ./cmd/rollcall ./examples/greeter/...).
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

names=(blue green red)
declare -A pids

# begin NAME PORT VERSION starts a server and returns when clients can find it.
begin() {
	greeter-server --id "$1" --addr "127.0.0.1:$2" --version "$3" &
	pids[$1]=$!
	until rollcall get greeter 2>/dev/null | grep -q "^$1 .* $3 "; do sleep 0.1; done
}

port=50051
for name in "${names[@]}"; do
	begin "$name" $((port++)) v1
done
greeter-client --calls 4000 --every 2ms &
load=$!
sleep 1

port=50051
for name in "${names[@]}"; do
	kill -TERM "${pids[$name]}" # it drains, deregisters, and ends when its last call has
	wait "${pids[$name]}"
	begin "$name" $((port++)) v2
done
wait $load
