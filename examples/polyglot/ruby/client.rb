# SPDX-FileCopyrightText: The Rollcall Authors
# SPDX-License-Identifier: Apache-2.0

# Calls a greeter and prints who answers: GRPC_XDS_BOOTSTRAP=xds.json ruby client.rb xds:///my-service

require "google/protobuf/wrappers_pb"
require "grpc"
require "optparse"

count, interval = 10, 0.5
OptionParser.new do |options|
  options.on("--count N", Integer, "how many calls; 0: until interrupted") { |n| count = n }
  options.on("--interval SECONDS", Float, "between calls") { |s| interval = s }
end.parse!
target = ARGV.fetch(0)

greeter = GRPC::ClientStub.new(target, :this_channel_is_insecure)
encode = Google::Protobuf::StringValue.method(:encode)
decode = Google::Protobuf::StringValue.method(:decode)
name = Google::Protobuf::StringValue.new(value: "Ruby")

(count.zero? ? (1..) : (1..count)).each do
  start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  begin
    result = greeter.request_response("/greeter.Greeter/Greet", name, encode, decode, deadline: Time.now + 5).value
  rescue GRPC::BadStatus => error
    result = "#{error.class.name.split("::").last}: #{error.details}"
  end
  puts format("%.1f ms: %s", (Process.clock_gettime(Process::CLOCK_MONOTONIC) - start) * 1000, result)
  $stdout.flush
  sleep interval
end
