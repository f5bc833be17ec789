// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Calls a greeter and prints who answers: GRPC_XDS_BOOTSTRAP=xds.json ./client xds:///my-service

#include <chrono>
#include <cstdio>
#include <future>
#include <iostream>
#include <string>
#include <thread>

#include <google/protobuf/wrappers.pb.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

using google::protobuf::StringValue;
using std::chrono::steady_clock;

using Greeter = grpc::TemplatedGenericStub<StringValue, StringValue>;

std::string greet(Greeter& greeter) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  StringValue name, greeting;
  name.set_value("C++");
  std::promise<grpc::Status> done;
  greeter.UnaryCall(&context, "/greeter.Greeter/Greet", {}, &name, &greeting,
                    [&done](grpc::Status status) { done.set_value(status); });
  grpc::Status status = done.get_future().get();
  if (!status.ok()) {
    return "code " + std::to_string(status.error_code()) + ": " + status.error_message();
  }
  return greeting.value();
}

int main(int argc, char** argv) {
  int count = 10;  // 0: until interrupted
  std::chrono::duration<double> interval(0.5);
  std::string target;
  for (int i = 1; i < argc; i++) {
    std::string argument = argv[i];
    if (argument == "--count" && i + 1 < argc) {
      count = std::stoi(argv[++i]);
    } else if (argument == "--interval" && i + 1 < argc) {
      interval = std::chrono::duration<double>(std::stod(argv[++i]));
    } else {
      target = argument;
    }
  }
  if (target.empty()) {
    std::cerr << "usage: client [--count CALLS] [--interval SECONDS] TARGET\n";
    return 2;
  }
  Greeter greeter(grpc::CreateChannel(target, grpc::InsecureChannelCredentials()));
  for (int i = 0; count == 0 || i < count; i++) {
    auto start = steady_clock::now();
    std::string result = greet(greeter);
    std::chrono::duration<double, std::milli> took = steady_clock::now() - start;
    std::printf("%.1f ms: %s\n", took.count(), result.c_str());
    std::fflush(stdout);
    std::this_thread::sleep_for(interval);
  }
}
