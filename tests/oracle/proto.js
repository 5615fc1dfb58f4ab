// As much protobuf as the oracle needs: fields of a message in order, and back.
'use strict';

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

// [{number, bytes | value, raw}], raw with its tag
function fields(b) {
  const list = [];
  for (let at = 0; at < b.length;) {
    const start = at;
    let tag, size, value, bytes;
    [tag, at] = readVarint(b, at);
    if (tag % 8 === 2) {
      [size, at] = readVarint(b, at);
      bytes = b.subarray(at, at += size);
    } else if (tag % 8 === 0) {
      [value, at] = readVarint(b, at);
    } else {
      at += tag % 8 === 1 ? 8 : 4;
    }
    list.push({ number: Math.floor(tag / 8), bytes, value, raw: b.subarray(start, at) });
  }
  return list;
}

const bytesField = (number, bytes) => Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
const intField = (number, value) => Buffer.concat([varint(number * 8), varint(value)]);
const strings = (list, number) => list.filter((f) => f.number === number).map((f) => f.bytes.toString());

// Numbers of onnx.proto: ModelProto.graph 7; GraphProto node 1, initializer 5, input 11, output 12.
function replaceGraph(model, change) {
  return Buffer.concat(fields(model).map((f) => (f.number === 7 ? bytesField(7, change(f.bytes)) : f.raw)));
}

// Makes inner values outputs: ValueInfoProto with the name alone.
function addOutputs(model, names) {
  return replaceGraph(model, (graph) => Buffer.concat([graph,
    ...names.map((n) => bytesField(12, bytesField(1, Buffer.from(n))))]));
}

// ValueInfoProto{name 1, type 2{tensor_type 1{elem_type 1, shape 2{dim 1{value 1 | param 2}}}}}
function valueInfo(name, elemType, dims) {
  const shape = Buffer.concat(dims.map((d) => bytesField(1,
    typeof d === 'string' ? bytesField(2, Buffer.from(d)) : intField(1, d))));
  const type = bytesField(1, Buffer.concat([intField(1, elemType), bytesField(2, shape)]));
  return Buffer.concat([bytesField(1, Buffer.from(name)), bytesField(2, type)]);
}

function readGraph(model) {
  const graph = fields(fields(model).find((f) => f.number === 7).bytes);
  const nodes = graph.filter((f) => f.number === 1).map((f) => {
    const n = fields(f.bytes);
    return { in: strings(n, 1), out: strings(n, 2), name: strings(n, 3)[0] || '', op: strings(n, 4)[0], raw: f.raw };
  });
  const inits = new Map(graph.filter((f) => f.number === 5).map((f) => {
    const t = fields(f.bytes);
    return [strings(t, 8)[0], { type: t.find((x) => x.number === 2).value, raw: f.raw }];
  }));
  const names = (number) => graph.filter((f) => f.number === number).map((f) => strings(fields(f.bytes), 1)[0]);
  return { nodes, inits, inputs: names(11).filter((n) => !inits.has(n)), outputs: names(12) };
}

module.exports = { addOutputs, bytesField, fields, intField, readGraph, replaceGraph, valueInfo };
