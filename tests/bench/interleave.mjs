// Lets programs that speak the protocol of float_latency.c take turns and prints the median of each and of the
// ratios of neighbouring rounds.
//   node interleave.mjs NAME SECONDS -- OURS ARG… [-- TUNED ARG…] -- PEER ARG…
// A turn is as many runs as fit in a tenth of a second (at least one), then all rest as long, so that threads that
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

const [name, seconds, ...rest_of] = process.argv.slice(2);
const commands = [];
for (const word of rest_of) {
  if (word === "--") commands.push([]);
  else commands[commands.length - 1].push(word);
}
const sides = commands.map(start);
for (const side of sides) await side.next();

let once = 0;
for (const side of sides) once = Math.max(once, await side.run(1));
const runs = clamp(TURN_US / once, 1, 2000);
const turn = 2 * once * (runs > 1 ? runs + 1 : 1);
const rounds = clamp((Number(seconds) * 1e6) / ((turn + Math.min(turn, TURN_US)) * sides.length / 2), 5, 41);
const times = sides.map(() => []);
for (let i = 0; i < rounds; i++) {
  // who goes first changes, so that a slow spell of the machine does not always hit the same one
  for (let k = 0; k < sides.length; k++) {
    const at = (i + k) % sides.length;
    times[at].push(await sides[at].run(runs));
    await rest(runs * once);
  }
}
for (const side of sides) side.end();

const peer = times[times.length - 1];
const ahead = (ours) => median(ours.map((us, i) => peer[i] / us)).toFixed(3);
const show = (us) => `${median(us).toFixed(1)} us (best ${Math.min(...us).toFixed(1)})`;
const tuned = times.length > 2 ? `tuned ${show(times[1])}, ` : "";
console.log(`${name}: ours ${show(times[0])}, ${tuned}peer ${show(peer)}; ${rounds} rounds of ${runs}`);
if (tuned) console.log(`${name} tuned=${ahead(times[1])}`);
console.log(`${name} ratio=${ahead(times[0])}`);
process.exit(0);
