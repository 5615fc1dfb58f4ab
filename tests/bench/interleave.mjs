// Lets two programs that speak the protocol of float_latency.c take turns and prints the median of each and of
// the ratios of neighbouring rounds.
//   node interleave.mjs NAME SECONDS -- OURS ARG… -- PEER ARG…
// A turn is as many runs as fit in a tenth of a second (at least one), then both rest as long, so that threads that
// spin on after a run do not disturb the other side. Rounds: as many as fit in SECONDS, 5 to 41.
import { spawn } from "node:child_process";
import readline from "node:readline";

const TURN_US = 100e3;

function start(argv) {
  const child = spawn(argv[0], argv.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
  const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  child.on("exit", (code) => {
    if (code !== 0) {
      console.error(`${argv.join(" ")} ended with ${code}`);
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
const clamp = (x, low, high) => Math.min(Math.max(Math.floor(x), low), high);
const rest = (us) => new Promise((done) => setTimeout(done, Math.min(us, TURN_US) / 1e3));

const args = process.argv.slice(2);
const [name, seconds] = args;
const second = args.indexOf("--", 3);
const ours = start(args.slice(3, second));
const peer = start(args.slice(second + 1));
await ours.next();
await peer.next();

const once = Math.max(await ours.run(1), await peer.run(1));
const runs = clamp(TURN_US / once, 1, 2000);
const rounds = clamp((Number(seconds) * 1e6) / (2 * once * (runs > 1 ? runs + 1 : 1) + 2 * TURN_US), 5, 41);
const a = [], b = [], ratio = [];
for (let i = 0; i < rounds; i++) {
  // who goes first changes, so that a slow spell of the machine does not always hit the same one
  const order = i % 2 ? [peer, ours] : [ours, peer];
  const t = [];
  for (const side of order) {
    t.push(await side.run(runs));
    await rest(runs * once);
  }
  const [us, them] = i % 2 ? [t[1], t[0]] : t;
  a.push(us);
  b.push(them);
  ratio.push(them / us);
}
ours.end();
peer.end();
console.log(`${name}: ours ${median(a).toFixed(1)} us, peer ${median(b).toFixed(1)} us, best ${Math.min(...a).toFixed(1)} and ${Math.min(...b).toFixed(1)} us; ${rounds} rounds of ${runs}`);
console.log(`${name} ratio=${median(ratio).toFixed(3)}`);
process.exit(0);
