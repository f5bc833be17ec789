# SPDX-FileCopyrightText: The Rollcall Authors
# SPDX-License-Identifier: Apache-2.0

"""A gRPC server: python3 server.py ADDRESS"""

import signal
import sys
from concurrent import futures

import grpc
from google.protobuf.wrappers_pb2 import StringValue

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"


def greet(request, context):
    return StringValue(value=f"hello {request.value}, this is {address}")


server = grpc.server(futures.ThreadPoolExecutor())
server.add_generic_rpc_handlers([
    grpc.method_handlers_generic_handler("greeter.Greeter", {
        "Greet": grpc.unary_unary_rpc_method_handler(greet, StringValue.FromString, StringValue.SerializeToString),
    })
])
if not server.add_insecure_port(address):
    sys.exit(f"cannot listen on {address}")
server.start()
signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=5))
server.wait_for_termination()
