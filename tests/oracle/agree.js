// How far two files of logits agree (methods.md, The file):
//   node agree.js OURS.npy ORACLE.npy [--labels LABELS.npy] [--top1 0.995] [--p99 0.02] [--largest 0.05]
// Prints {"n", "top1", "p99", "largest", "equal", "accuracy", "accuracy_oracle"}: top1 is the share of rows with the
// same largest logit; p99 and largest are of the rows' largest softmax differences. Exit 1 beyond the limits.
'use strict';
const { fromHalf, readNpy } = require('./npy.js');

function softmax(row) {
  const max = Math.max(...row), e = row.map((v) => Math.exp(v - max)), sum = e.reduce((a, b) => a + b);
  return e.map((v) => v / sum);
}

const argmax = (row) => row.indexOf(Math.max(...row));

function agree(a, b, labels) {
  const n = a.dims[0], k = a.data.length / n, d = [];
  let same = 0, equal = 0, right = 0, rightOracle = 0;
  for (let i = 0; i < n; i++) {
    const x = Array.from(a.data.subarray(i * k, (i + 1) * k)), y = Array.from(b.data.subarray(i * k, (i + 1) * k));
    const p = softmax(x), q = softmax(y);
    d.push(Math.max(...p.map((v, j) => Math.abs(v - q[j]))));
    same += argmax(x) === argmax(y);
    equal += x.every((v, j) => v === y[j]);
    if (labels) {
      right += argmax(x) === Number(labels.data[i]);
      rightOracle += argmax(y) === Number(labels.data[i]);
    }
  }
  d.sort((x, y) => x - y);
  const result = { n, top1: same / n, p99: d[Math.ceil(0.99 * n) - 1], largest: d[n - 1], equal: equal / n };
  return labels ? { ...result, accuracy: right / n, accuracy_oracle: rightOracle / n } : result;
}

const args = process.argv.slice(2);
const option = (name, dflt) => (args.includes(name) ? args[args.indexOf(name) + 1] : dflt);
const labels = option('--labels');
const read = (file) => {
  const t = readNpy(file);
  return t.type === 'float16' ? { ...t, data: Float32Array.from(t.data, fromHalf) } : t;
};
const r = agree(read(args[0]), read(args[1]), labels && readNpy(labels));
console.log(JSON.stringify(r));
process.exit(r.top1 >= Number(option('--top1', 0.995)) && r.p99 <= Number(option('--p99', 2e-2)) &&
  r.largest <= Number(option('--largest', 5e-2)) ? 0 : 1);
