// The peer's side of the loading benchmark: see load_first.c. The run time itself is loaded before the clock starts.
//   node --expose-gc ort_load.mjs FILE
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.ORT_FOLDER + "/");
const ort = require("onnxruntime-node");
const options = { intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: "sequential", graphOptimizationLevel: "all" };

const status = (key) => Number(readFileSync("/proc/self/status", "latin1").match(`${key}:\\s*(\\d+)`)[1]);

global.gc();
writeFileSync("/proc/self/clear_refs", "5");
const before = status("VmRSS");
const begin = process.hrtime.bigint();
const session = await ort.InferenceSession.create(process.argv[2], options);
const feeds = {};
for (const meta of session.inputMetadata) {
  const dims = meta.shape.map((d) => (typeof d === "number" && d > 0 ? d : 1));
  feeds[meta.name] = new ort.Tensor("float32", new Float32Array(dims.reduce((a, b) => a * b, 1)), dims);
}
await session.run(feeds);
const us = Number(process.hrtime.bigint() - begin) / 1000;
global.gc();
console.log(`${us.toFixed(0)} ${status("VmRSS") - before} ${status("VmHWM") - before}`);
process.exit(0);
