// Loads a file in processes of ours and of the peer's, in turns, and prints the medians: time to the first answer,
// what the process grew by, its peak meanwhile.
//   node load.mjs NAME ROUNDS -- OURS ARG… -- PEER ARG…
import { spawnSync } from "node:child_process";

const [name, rounds, ...words] = process.argv.slice(2);
const commands = [];
for (const word of words) {
  if (word === "--") commands.push([]);
  else commands[commands.length - 1].push(word);
}

function run(command) {
  const child = spawnSync(command[0], command.slice(1), { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  if (child.status !== 0) {
    console.error(`${command.join(" ")} ended with ${child.status ?? child.signal}`);
    process.exit(1);
  }
  return child.stdout.trim().split(" ").map(Number);
}

const median = (a) => [...a].sort((x, y) => x - y)[a.length >> 1];
const sides = commands.map(() => []);
for (const command of commands) run(command); // the files into the page cache
for (let i = 0; i < Number(rounds); i++)
  for (let k = 0; k < sides.length; k++) {
    const at = (i + k) % sides.length;
    sides[at].push(run(commands[at]));
  }

const [ours, peer] = sides.map((runs) => [0, 1, 2].map((field) => median(runs.map((r) => r[field]))));
const show = ([us, kb, peak]) => `${(us / 1000).toFixed(1)} ms, ${(kb / 1024).toFixed(1)} MiB resident, peak ${(peak / 1024).toFixed(1)} MiB`;
console.log(`${name}: ours ${show(ours)}; peer ${show(peer)}`);
console.log(`${name} resident=${(peer[1] / ours[1]).toFixed(3)} peak=${(peer[2] / ours[2]).toFixed(3)}`);
console.log(`${name} ratio=${median(sides[0].map((r, i) => sides[1][i][0] / r[0])).toFixed(3)}`);
