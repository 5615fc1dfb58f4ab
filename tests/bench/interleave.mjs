// Lets two programs that speak the protocol of float_latency.c take turns and prints the median of each and of
// the ratios of neighbouring rounds.
//   node interleave.mjs NAME ROUNDS RUNS -- OURS ARG… -- PEER ARG…
import { spawn } from "node:child_process";
import readline from "node:readline";

function start(argv) {
  const child = spawn(argv[0], argv.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
  const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  child.on("exit", (code) => {
    if (code) {
      console.error(`${argv[0]} ended with ${code}`);
      process.exit(1);
    }
  });
  return {
    next: async () => (await lines.next()).value,
    run: async function (n) {
      child.stdin.write(`${n}\n`);
      return Number(await this.next());
    },
    end: () => child.stdin.end(),
  };
}

const median = (a) => [...a].sort((x, y) => x - y)[a.length >> 1];
const args = process.argv.slice(2);
const [name, rounds, runs] = args;
const second = args.indexOf("--", 4);
const ours = start(args.slice(4, second));
const peer = start(args.slice(second + 1));
await ours.next();
await peer.next();
const a = [], b = [], ratio = [];
for (let i = 0; i < Number(rounds); i++) {
  // who goes first changes, so that a slow spell of the machine does not always hit the same one
  const order = i % 2 ? [peer, ours] : [ours, peer];
  const t = [];
  for (const side of order) t.push(await side.run(Number(runs)));
  const [us, them] = i % 2 ? [t[1], t[0]] : t;
  a.push(us);
  b.push(them);
  ratio.push(them / us);
}
ours.end();
peer.end();
console.log(`${name}: ours ${median(a).toFixed(1)} us, peer ${median(b).toFixed(1)} us, best ${Math.min(...a).toFixed(1)} and ${Math.min(...b).toFixed(1)} us`);
console.log(`${name} ratio=${median(ratio).toFixed(3)}`);
process.exit(0);
