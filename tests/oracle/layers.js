// Every layer of an int8 file on equal inputs, in our engine and in ONNX Runtime: codes may differ by one step.
//   node layers.js MODEL --input NAME=FILE.npy --worker BONSAI-WORKER --work DIR
// A layer is what lies between quantised values: cut out as a model of its own, with the codes that ONNX Runtime
// computed unoptimised as its input. Prints one line a layer; exit 1 when one differs by more than a step.
'use strict';
const fs = require('fs');
const path = require('path');
const { execFileSync } = require('child_process');
const { run } = require('./ort.js');
const { readNpy } = require('./npy.js');
const { bytesField, readGraph, replaceGraph, valueInfo } = require('./proto.js');

const ELEM_TYPES = { float32: 1, uint8: 2, int8: 3 };
const file = (value) => `${value.replaceAll('/', '_')}.npy`;

// The nodes between quantised values and output `out`: {nodes, inputs (values of codes), inits}, or null when a float
// comes in from elsewhere.
function cut(graph, producer, out) {
  // a codebook's codes are computed, too
  const isConstant = (v) => !v || graph.inits.has(v) || (producer.has(v) && producer.get(v).in.length > 0 &&
    producer.get(v).in.every(isConstant));
  const nodes = new Set(), inputs = new Set(), inits = new Set();
  const walk = (v) => {
    if (!v) return true;
    if (graph.inits.has(v)) return inits.add(v);
    const n = producer.get(v);
    if (!n) return false;
    if (nodes.has(n)) return true;
    nodes.add(n);
    if (n.op === 'DequantizeLinear' && !isConstant(n.in[0])) {
      inputs.add(n.in[0]);
      return n.in.slice(1).every(walk);
    }
    return n.in.every(walk);
  };
  return walk(out) && inputs.size ? { nodes, inputs, inits } : null;
}

function write(model, graph, layer, out, codes, to) {
  const tensor = (v, free) => valueInfo(v, ELEM_TYPES[codes(v).type], free(codes(v).dims));
  const result = codes(out);
  const parts = [
    ...graph.nodes.filter((n) => layer.nodes.has(n)).map((n) => n.raw),
    bytesField(2, Buffer.from('layer')),
    ...[...layer.inits].map((v) => graph.inits.get(v).raw),
    ...[...layer.inputs].map((v) => bytesField(11, tensor(v, (d) => ['N', ...d.slice(1)]))),
    bytesField(12, valueInfo(out, ELEM_TYPES[result.type], ['N', ...result.dims.slice(1)])),
  ];
  fs.writeFileSync(to, replaceGraph(model, () => Buffer.concat(parts)));
}

function compare(a, b) {
  let largest = 0, differ = 0;
  for (let i = 0; i < a.data.length; i++) {
    const d = Math.abs(a.data[i] - b.data[i]);
    differ += d > 0;
    largest = Math.max(largest, d);
  }
  return { largest, share: differ / a.data.length };
}

async function main(o) {
  const model = fs.readFileSync(o.model), graph = readGraph(model), producer = new Map();
  for (const n of graph.nodes) for (const v of n.out) producer.set(v, n);
  const quantised = graph.nodes.filter((n) => n.op === 'QuantizeLinear').map((n) => n.out[0]);
  const values = path.join(o.work, 'values'), layerFile = path.join(o.work, 'layer.onnx'), read = new Map();
  const codes = (v) => read.get(v) || (read.set(v, readNpy(path.join(values, file(v)))), read.get(v));
  fs.mkdirSync(values, { recursive: true });
  await run({ model: o.model, inputs: o.inputs, also: quantised, level: 'disabled', threads: 1, output: values });
  let bad = 0, count = 0;
  for (const out of [...quantised, ...graph.outputs]) {
    const layer = cut(graph, producer, out);
    if (!layer) continue;
    const sides = ['ours', 'oracle'].map((s) => path.join(o.work, s));
    sides.forEach((s) => fs.mkdirSync(s, { recursive: true }));
    write(model, graph, layer, out, codes, layerFile);
    const inputs = Object.fromEntries([...layer.inputs].map((v) => [v, path.join(values, file(v))]));
    await run({ model: layerFile, inputs, also: [], level: 'all', threads: 1, output: sides[1] });
    execFileSync(o.worker, ['infer', layerFile, ...Object.entries(inputs).flatMap(([v, f]) => ['--input', `${v}=${f}`]),
      '--output', sides[0]]);
    const [a, b] = sides.map((s) => readNpy(path.join(s, file(out))));
    const { largest, share } = compare(a, b), isFloat = a.type === 'float32';
    const scale = isFloat ? b.data.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-6) : 1;
    const ok = isFloat ? largest / scale <= 1e-4 : largest <= 1;
    const main_ = [...layer.nodes].find((n) => !n.op.endsWith('quantizeLinear') && n.op !== 'QuantizeLinear');
    console.log(`${ok ? 'ok  ' : 'FAIL'} ${main_ ? `${main_.op} ${main_.name}` : out}: largest ${largest}${isFloat ? '' : ' steps'}, differ ${(100 * share).toFixed(3)}%`);
    bad += !ok;
    count++;
  }
  console.log(`${count - bad} layers within a step, ${bad} beyond`);
  process.exit(bad || !count ? 1 : 0);
}

const args = process.argv.slice(2), o = { model: args[0], inputs: {} };
for (let i = 1; i < args.length; i += 2) {
  const eq = args[i + 1].lastIndexOf('=');
  if (args[i] === '--input') o.inputs[args[i + 1].slice(0, eq)] = args[i + 1].slice(eq + 1);
  else o[args[i].slice(2)] = args[i + 1];
}
main(o).catch((e) => {
  console.error(e.message);
  process.exit(1);
});
