// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Calls a greeter and prints who answers: GRPC_XDS_BOOTSTRAP=xds.json node client.js xds:///my-service

const path = require('node:path');
const { parseArgs } = require('node:util');
const { setTimeout: sleep } = require('node:timers/promises');

const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

require('@grpc/grpc-js-xds').register(); // the scheme "xds"

const { values: flags, positionals: [target] } = parseArgs({
  allowPositionals: true,
  options: {
    count: { type: 'string', default: '10' }, // how many calls; 0: until interrupted
    interval: { type: 'string', default: '0.5' }, // seconds between calls
  },
});

const { greeter } = grpc.loadPackageDefinition(loader.loadSync(path.join(__dirname, '../greeter.proto')));
const client = new greeter.Greeter(target, grpc.credentials.createInsecure());

function greet() {
  return new Promise((resolve) => {
    client.greet({ value: 'Node' }, { deadline: Date.now() + 5000 }, (error, greeting) => {
      resolve(error ? `${grpc.status[error.code]}: ${error.details}` : greeting.value);
    });
  });
}

async function main() {
  const count = Number(flags.count);
  for (let i = 0; count === 0 || i < count; i++) {
    const start = performance.now();
    const result = await greet();
    console.log(`${(performance.now() - start).toFixed(1)} ms: ${result}`);
    await sleep(Number(flags.interval) * 1000);
  }
  client.close();
}

main();
