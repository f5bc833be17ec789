# SPDX-FileCopyrightText: The Rollcall Authors
# SPDX-License-Identifier: Apache-2.0

"""A gRPC server that knows nothing of etcd: python3 server.py HOST:PORT

It answers greeter.Greeter/Greet, and grpc.health.v1: NOT_SERVING after SIGUSR1, SERVING again after
SIGUSR2. After SIGTERM it ends when the calls under way have, within five seconds."""

import signal
import sys
from concurrent import futures

import grpc
from google.protobuf.wrappers_pb2 import StringValue

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # grpc.health.v1.HealthCheckResponse, as it is sent

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
health = SERVING


def greet(request, context):
    return StringValue(value=f"hello {request.value}, this is {address}")


def check(request, context):
    return health


def set_health(status):
    global health
    health = status


server = grpc.server(futures.ThreadPoolExecutor())
server.add_generic_rpc_handlers([
    grpc.method_handlers_generic_handler("greeter.Greeter", {
        "Greet": grpc.unary_unary_rpc_method_handler(greet, StringValue.FromString, StringValue.SerializeToString),
    }),
    grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
        "Check": grpc.unary_unary_rpc_method_handler(check),
    }),
])
if not server.add_insecure_port(address):
    sys.exit(f"cannot listen on {address}")
server.start()
signal.signal(signal.SIGUSR1, lambda *_: set_health(NOT_SERVING))
signal.signal(signal.SIGUSR2, lambda *_: set_health(SERVING))
signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=5))
server.wait_for_termination()
