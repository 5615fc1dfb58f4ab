// ONNX Runtime as an oracle: runs a model on .npy inputs and writes its outputs as .npy.
//
//   node ort.js MODEL --input NAME=FILE.npy … --output DIR [--also VALUE,VALUE…] [--level disabled|all] [--batch N]
//   node ort.js MODEL --bench SECONDS --shape NAME=1x3x32x32 … [--threads N]
//
// --also makes inner values outputs too; --level disabled turns graph optimisations off (then every operator
// rounds where the file says); --batch cuts the first dimension. --bench prints {"p50_us", "min_us", "runs"}.
'use strict';
const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');
const { readNpy, writeNpy } = require('./npy.js');
const { addOutputs } = require('./proto.js');

// installed beside this file, or where ORT_FOLDER says
const ort = createRequire(`${process.env.ORT_FOLDER || __dirname}/`)('onnxruntime-node');

function parseArgs(argv) {
  const o = { inputs: {}, shapes: {}, also: [], level: 'all', threads: 1 };
  o.model = argv[0];
  for (let i = 1; i < argv.length; i += 2) {
    const [key, value] = [argv[i], argv[i + 1]], eq = (value || '').lastIndexOf('=');
    if (key === '--input') o.inputs[value.slice(0, eq)] = value.slice(eq + 1);
    else if (key === '--shape') o.shapes[value.slice(0, eq)] = value.slice(eq + 1).split('x').map(Number);
    else if (key === '--also') o.also.push(...value.split(','));
    else if (['--output', '--level', '--batch', '--bench', '--threads'].includes(key)) o[key.slice(2)] = value;
    else throw new Error(`unknown argument ${key}`);
  }
  return o;
}

async function open(o) {
  let model = fs.readFileSync(o.model);
  if (o.also.length) model = addOutputs(model, o.also);
  return ort.InferenceSession.create(model, {
    graphOptimizationLevel: o.level, intraOpNumThreads: Number(o.threads), interOpNumThreads: 1,
    logSeverityLevel: 3,
  });
}

async function run(o) {
  const session = await open(o), outputs = {};
  const inputs = Object.entries(o.inputs).map(([name, file]) => [name, readNpy(file)]);
  const n = inputs[0][1].dims[0], step = Number(o.batch || n);
  for (let at = 0; at < n; at += step) {
    const feeds = {};
    for (const [name, t] of inputs) {
      const each = t.data.length / n, rows = Math.min(step, n - at);
      feeds[name] = new ort.Tensor(t.type, t.data.subarray(at * each, (at + rows) * each), [rows, ...t.dims.slice(1)]);
    }
    for (const [name, t] of Object.entries(await session.run(feeds))) (outputs[name] ||= []).push(t);
  }
  for (const [name, parts] of Object.entries(outputs)) {
    const data = Buffer.concat(parts.map((t) => Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength)));
    const dims = parts.length > 1 ? [n, ...parts[0].dims.slice(1)] : parts[0].dims;
    writeNpy(path.join(o.output, `${name.replaceAll('/', '_')}.npy`), parts[0].type, dims, data);
  }
}

async function bench(o) {
  const session = await open(o), feeds = {}, times = [];
  for (const [name, dims] of Object.entries(o.shapes)) {
    const data = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => ((i * 37) % 255) / 255);
    feeds[name] = new ort.Tensor('float32', data, dims);
  }
  const end = performance.now() + 1000 * Number(o.bench);
  for (let i = 0; i < 5; i++) await session.run(feeds);
  while (performance.now() < end || times.length < 9) {
    const start = performance.now();
    await session.run(feeds);
    times.push(1000 * (performance.now() - start));
  }
  times.sort((a, b) => a - b);
  console.log(JSON.stringify({ p50_us: times[times.length >> 1], min_us: times[0], runs: times.length }));
}

module.exports = { run };

if (require.main === module) {
  const options = parseArgs(process.argv.slice(2));
  (options.bench ? bench(options) : run(options)).catch((e) => {
    console.error(e.message);
    process.exit(1);
  });
}
