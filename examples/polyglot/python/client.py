# SPDX-FileCopyrightText: The Rollcall Authors
# SPDX-License-Identifier: Apache-2.0

"""Calls a greeter and prints who answers: GRPC_XDS_BOOTSTRAP=xds.json python3 client.py xds:///my-service"""

import argparse
import itertools
import time

import grpc
from google.protobuf.wrappers_pb2 import StringValue

parser = argparse.ArgumentParser()
parser.add_argument("--count", type=int, default=10, help="how many calls; 0: until interrupted")
parser.add_argument("--interval", type=float, default=0.5, help="seconds between calls")
parser.add_argument("target")
args = parser.parse_args()

with grpc.insecure_channel(args.target) as channel:
    greet = channel.unary_unary("/greeter.Greeter/Greet", StringValue.SerializeToString, StringValue.FromString)
    for _ in range(args.count) if args.count else itertools.count():
        start = time.monotonic()
        try:
            result = greet(StringValue(value="Python"), timeout=5).value
        except grpc.RpcError as error:
            result = f"{error.code().name}: {error.details()}"
        print(f"{(time.monotonic() - start) * 1000:.1f} ms: {result}", flush=True)
        time.sleep(args.interval)
