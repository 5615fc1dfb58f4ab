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
const ort = require('onnxruntime-node');

const NPY_TYPES = {
  float32: ['<f4', Float32Array], uint8: ['|u1', Uint8Array], int8: ['|i1', Int8Array],
  int32: ['<i4', Int32Array], int64: ['<i8', BigInt64Array], bool: ['|b1', Uint8Array],
};

function readNpy(file) {
  const b = fs.readFileSync(file);
  const long = b[6] > 1, size = long ? b.readUInt32LE(8) : b.readUInt16LE(8), at = (long ? 12 : 10) + size;
  const header = b.toString('latin1', long ? 12 : 10, at);
  const descr = /'descr':\s*'([^']+)'/.exec(header)[1];
  const dims = /'shape':\s*\(([^)]*)\)/.exec(header)[1].split(',').filter((s) => s.trim()).map(Number);
  const [type, [, Array_]] = Object.entries(NPY_TYPES).find(([, [d]]) => d === descr);
  const data = new Array_(new Uint8Array(b.subarray(at)).buffer);
  return { type, dims, data };
}

function writeNpy(file, type, dims, data) {
  const shape = dims.length === 1 ? `${dims[0]},` : dims.join(', ');
  let header = `{'descr': '${NPY_TYPES[type][0]}', 'fortran_order': False, 'shape': (${shape}), }`;
  header = header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11) + '\n';
  const size = Buffer.alloc(2);
  size.writeUInt16LE(header.length);
  fs.writeFileSync(file, Buffer.concat([Buffer.from('\x93NUMPY\x01\x00', 'latin1'), size,
    Buffer.from(header, 'latin1'), Buffer.from(data.buffer, data.byteOffset, data.byteLength)]));
}

// Protobuf, as far as needed to append ValueInfoProto{name} to GraphProto.output (field 12) of
// ModelProto.graph (field 7).
function readVarint(b, at) {
  let v = 0, shift = 1;
  for (;;) {
    const byte = b[at++];
    v += (byte & 127) * shift;
    if (byte < 128) return [v, at];
    shift *= 128;
  }
}

function varint(v) {
  const out = [];
  for (; v > 127; v = Math.floor(v / 128)) out.push((v % 128) + 128);
  out.push(v);
  return Buffer.from(out);
}

function field(number, bytes) {
  return Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
}

function addOutputs(model, names) {
  for (let at = 0; at < model.length;) {
    const start = at;
    let tag, size;
    [tag, at] = readVarint(model, at);
    if (tag % 8 === 2) {
      [size, at] = readVarint(model, at);
    } else if (tag % 8 === 0) {
      [, at] = readVarint(model, at);
      size = 0;
    } else {
      size = tag % 8 === 1 ? 8 : 4;
    }
    if (Math.floor(tag / 8) === 7) {
      const graph = Buffer.concat([model.subarray(at, at + size),
        ...names.map((n) => field(12, field(1, Buffer.from(n))))]);
      return Buffer.concat([model.subarray(0, start), field(7, graph), model.subarray(at + size)]);
    }
    at += size;
  }
  throw new Error('no graph in the model');
}

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

const options = parseArgs(process.argv.slice(2));
(options.bench ? bench(options) : run(options)).catch((e) => {
  console.error(e.message);
  process.exit(1);
});
