// The peer's side of the latency benchmark: see float_latency.c for the protocol.
//   node ort_latency.mjs FILE BATCH THREADS      (onnxruntime-node is found through ORT_FOLDER)
// What a call through the JavaScript binding costs is not the peer's speed: the time of a network that does nothing,
// measured at the start, is taken off.
import { createRequire } from "node:module";
import readline from "node:readline";

const require = createRequire(process.env.ORT_FOLDER + "/");
const ort = require("onnxruntime-node");
const [file, batch, threads] = process.argv.slice(2);
const options = {
  intraOpNumThreads: Number(threads),
  interOpNumThreads: 1,
  executionMode: "sequential",
  graphOptimizationLevel: "all",
};

function makeFeeds(session) {
  const feeds = {};
  for (const meta of session.inputMetadata) {
    const dims = meta.shape.map((d) => (typeof d === "number" && d > 0 ? d : Number(batch)));
    const data = new Float32Array(dims.reduce((a, b) => a * b, 1));
    let state = 1;
    for (let i = 0; i < data.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      data[i] = (state >>> 8) / 8388608 - 1;
    }
    feeds[meta.name] = new ort.Tensor("float32", data, dims);
  }
  return feeds;
}

async function time(session, feeds, n) {
  const us = [];
  if (n > 1) await session.run(feeds);
  for (let i = 0; i < n; i++) {
    const t = process.hrtime.bigint();
    await session.run(feeds);
    us.push(Number(process.hrtime.bigint() - t) / 1000);
  }
  us.sort((a, b) => a - b);
  return us[us.length >> 1];
}

// y = Identity(x), one float, opset 13
const NOTHING = Buffer.from("CAgSADo3ChAKAXgSAXkiCElkZW50aXR5EgFnWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQDQ==", "base64");

async function timeNothing() {
  const session = await ort.InferenceSession.create(NOTHING, options);
  const us = await time(session, makeFeeds(session), 500);
  await session.release();
  return us;
}

const binding = await timeNothing();
const session = await ort.InferenceSession.create(file, options);
const feeds = makeFeeds(session);
await session.run(feeds);
console.log("ready");
for await (const line of readline.createInterface({ input: process.stdin })) {
  const us = await time(session, feeds, Number(line));
  console.log((us - binding).toFixed(2));
}
process.exit(0);
