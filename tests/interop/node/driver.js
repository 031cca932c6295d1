// Run as a process: @grpc/grpc-js with the project's own protos, loaded as they are, driven by lines (see wire.py).
//
// node driver.js ADDRESS PROTOS-FOLDER

import path from "node:path";
import readline from "node:readline";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const [address, protos] = process.argv.slice(2);
const options = { keepCase: true, longs: String, enums: String, oneofs: true };
const load = (file) => grpc.loadPackageDefinition(protoLoader.loadSync(path.join(protos, file), options));
const inference = new (load("open_inference.proto").inference.GRPCInferenceService)(
  address, grpc.credentials.createInsecure());
const health = new (load("health.proto").grpc.health.v1.Health)(address, grpc.credentials.createInsecure());

// google.rpc's messages, as far as the server sends them.
const rpc = protobuf.parse(`syntax = "proto3"; package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message BadRequest { message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }`, { keepCase: true }).root;

function details(metadata) {
  const [sent] = metadata ? metadata.get("grpc-status-details-bin") : [];
  if (!sent) return [];
  return rpc.lookupType("google.rpc.Status").decode(sent).details.map(({ type_url, value }) => {
    const type = rpc.lookupType(type_url.split("/").pop());
    return { type: type.name, ...type.toObject(type.decode(value), { longs: String }) };
  });
}

const failure = (error) => ({
  code: grpc.status[error.code], message: error.details, details: details(error.metadata),
});

function metadataOf(headers) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(headers ?? {})) metadata.set(key, value);
  return metadata;
}

const callOptions = ({ deadline_ms }) => (deadline_ms === undefined ? {} : { deadline: Date.now() + deadline_ms });

function unary(client, { rpc: method, request, headers, cancel, ...rest }) {
  return new Promise((resolve, reject) => {
    const call = client[method](request ?? {}, metadataOf(headers), callOptions(rest),
      (error, response) => (error ? reject(error) : resolve(response)));
    if (cancel) setImmediate(() => call.cancel());
  });
}

// Every response until the stream ends, or until `responses` of them have come and the call is cancelled.
function responsesOf(call, responses) {
  return new Promise((resolve, reject) => {
    const came = [];
    call.on("data", (response) => {
      came.push(response);
      if (came.length === responses) call.cancel();
    });
    call.on("error", (error) => {
      if (error.code === grpc.status.CANCELLED && came.length === responses) resolve({ responses: came });
      else resolve({ responses: came, error: failure(error) });
    });
    call.on("end", () => setImmediate(() => resolve({ responses: came })));
  });
}

const methods = {
  unary: (args) => unary(inference, args),
  health: (args) => unary(health, args),
  watch: ({ request, responses }) => responsesOf(health.Watch(request), responses),
  stream: ({ requests, headers, responses, ...rest }) => {
    const call = inference.ModelStreamInfer(metadataOf(headers), callOptions(rest));
    const all = responsesOf(call, responses);
    for (const request of requests) call.write(request);
    // Left open where only some responses are waited for, so that it is the client's cancellation that ends it.
    if (responses === undefined) call.end();
    return all;
  },
};

const encode = (key, value) => (value?.type === "Buffer" ? { $bytes: Buffer.from(value.data).toString("base64") } : value);
const decode = (key, value) => (value?.$bytes === undefined ? value : Buffer.from(value.$bytes, "base64"));

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { method, arguments: args } = JSON.parse(line, decode);
  let answer;
  try {
    answer = { result: await methods[method](args) };
  } catch (error) {
    answer = error.code === undefined ? { crash: error.stack } : { failure: failure(error) };
  }
  process.stdout.write(`${JSON.stringify(answer, encode)}\n`);
}
