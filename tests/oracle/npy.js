// .npy files (NumPy's format 1.0), the types tensors have.
'use strict';
const fs = require('fs');

const NPY_TYPES = {
  float32: ['<f4', Float32Array], uint8: ['|u1', Uint8Array], int8: ['|i1', Int8Array],
  int32: ['<i4', Int32Array], int64: ['<i8', BigInt64Array], bool: ['|b1', Uint8Array],
  float16: ['<f2', Uint16Array], // codes: JavaScript has no such numbers
};

const fromHalf = (h) => {
  const sign = h & 0x8000 ? -1 : 1, exp = (h >> 10) & 31, fraction = h & 1023;
  if (exp === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exp ? (1024 + fraction) * 2 ** (exp - 25) : fraction * 2 ** -24);
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

module.exports = { fromHalf, readNpy, writeNpy };
