// Makes a float16 network of a float one, as converters do:
//   node halves.js FLOAT.onnx HALF.onnx [--keep-io]
// Initialisers and constants become float16, and so do inputs and outputs; with --keep-io these stay float behind and
// before a Cast. Numbers are rounded to nearest, ties to even.
'use strict';
const fs = require('fs');
const { bytesField, fields, intField, replaceGraph } = require('./proto.js');

const FLOAT = 1, HALF = 10;

function half(x) {
  const f = new Float32Array([x]), bits = new Uint32Array(f.buffer)[0], sign = (bits >>> 16) & 0x8000;
  const a = Math.abs(x);
  if (Number.isNaN(x)) return 0x7e00;
  if (a >= 65520) return sign | 0x7c00;
  const even = (v) => { const r = Math.floor(v), d = v - r; return d > 0.5 || (d === 0.5 && r % 2) ? r + 1 : r; };
  if (a < 2 ** -14) return sign | even(a * 2 ** 24);
  const e = Math.floor(Math.log2(a)), exp = a < 2 ** e ? e - 1 : a >= 2 ** (e + 1) ? e + 1 : e;
  return sign | (((exp + 15) << 10) + even(a * 2 ** (10 - exp)) - 1024);
}

// TensorProto: dims 1, data_type 2, float_data 4, raw_data 9
function halfTensor(bytes) {
  const f = fields(bytes), type = f.find((x) => x.number === 2).value;
  if (type !== FLOAT) return bytes;
  const raw = Buffer.concat(f.filter((x) => x.number === 9 || x.number === 4).map((x) => x.bytes));
  const codes = Buffer.alloc(raw.length / 2);
  for (let i = 0; i < codes.length / 2; i++) codes.writeUInt16LE(half(raw.readFloatLE(4 * i)), 2 * i);
  return Buffer.concat([...f.map((x) => (x.number === 2 ? intField(2, HALF) :
    x.number === 4 || x.number === 9 ? Buffer.alloc(0) : x.raw)), bytesField(9, codes)]);
}

// ValueInfoProto{1: name, 2{1{1: elem_type, 2: shape}}}
function halfValue(bytes) {
  const change = (b, path) => Buffer.concat(fields(b).map((f) => (f.number !== path[0] ? f.raw :
    path.length === 1 ? (f.value === FLOAT ? intField(1, HALF) : f.raw) : bytesField(f.number, change(f.bytes, path.slice(1))))));
  return change(bytes, [2, 1, 1]);
}

// NodeProto: attribute 5 {5: tensor}
function halfNode(bytes) {
  return Buffer.concat(fields(bytes).map((f) => (f.number !== 5 ? f.raw : bytesField(5, Buffer.concat(
    fields(f.bytes).map((a) => (a.number === 5 ? bytesField(5, halfTensor(a.bytes)) : a.raw)))))));
}

const nameOf = (info) => fields(info).find((f) => f.number === 1).bytes.toString();
const isFloat = (info) => !halfValue(info).equals(info);

// NodeProto: input 1, output 2, op_type 4, attribute 5 {name 1, i 3, type 20 (INT is 2)}
function cast(from, to, type) {
  const attr = Buffer.concat([bytesField(1, Buffer.from('to')), intField(3, type), intField(20, 2)]);
  return bytesField(1, Buffer.concat([bytesField(1, Buffer.from(from)), bytesField(2, Buffer.from(to)),
    bytesField(4, Buffer.from('Cast')), bytesField(5, attr)]));
}

function rename(node, names) {
  return Buffer.concat(fields(node).map((f) => ((f.number === 1 || f.number === 2) && names.has(f.bytes.toString())
    ? bytesField(f.number, Buffer.from(names.get(f.bytes.toString()))) : f.raw)));
}

function halfGraph(graph, keepIo) {
  const all = fields(graph), inits = new Set(all.filter((f) => f.number === 5)
    .map((f) => fields(f.bytes).find((x) => x.number === 8).bytes.toString()));
  const io = keepIo ? all.filter((f) => (f.number === 11 || f.number === 12) && isFloat(f.bytes) &&
    !inits.has(nameOf(f.bytes))) : [];
  const names = new Map(io.map((f) => [nameOf(f.bytes), `${nameOf(f.bytes)}_half`]));
  const casts = io.map((f) => { const n = nameOf(f.bytes);
    return f.number === 11 ? cast(n, names.get(n), HALF) : cast(names.get(n), n, FLOAT); });
  const rest = all.map((f) => {
    if (f.number === 1) return bytesField(1, rename(halfNode(f.bytes), names));
    if (f.number === 5) return bytesField(5, halfTensor(f.bytes));
    if (f.number >= 11 && f.number <= 13) return io.includes(f) ? f.raw : bytesField(f.number, halfValue(f.bytes));
    return f.raw;
  });
  const first = casts.filter((_, i) => io[i].number === 11), last = casts.filter((_, i) => io[i].number === 12);
  const at = all.findLastIndex((f) => f.number === 1) + 1;
  return Buffer.concat([...first, ...rest.slice(0, at), ...last, ...rest.slice(at)]);
}

module.exports = { half };

if (require.main === module) {
  const [from, to, flag] = process.argv.slice(2);
  fs.writeFileSync(to, replaceGraph(fs.readFileSync(from), (g) => halfGraph(g, flag === '--keep-io')));
}
