// The built-in page in a real browser: node page.mjs URL PICTURE MODEL VARIANT LABEL
// MODEL is there with VARIANT beside its original, both ready and compared; PICTURE shows LABEL.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [url, picture, model, variant, label] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

async function test(name, size, run) {
  const page = await browser.newPage({ viewport: size });
  const problems = [];
  page.on("pageerror", (e) => problems.push(String(e)));
  page.on("console", (m) => { if (m.type() === "error") problems.push(m.text()); });
  page.on("request", (r) => { if (!r.url().startsWith(url) && !r.url().startsWith("blob:")) problems.push("outside resource " + r.url()); });
  page.setDefaultTimeout(20000);
  await page.goto(url + "/");
  await run(page);
  if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name.replaceAll(" ", "-")}.png`, fullPage: true });
  assert.deepEqual(problems, []);
  await page.close();
  console.log("ok " + name);
}

const desk = { width: 1280, height: 800 }, phone = { width: 360, height: 740 };
let failed = 0;
for (const [name, size, run] of [
  ["models and variants are listed with their measured figures", desk, async (page) => {
    await page.getByRole("button", { name: model, exact: true }).click();
    const row = page.locator(`#variants tr[data-variant="${variant}"]`);
    await row.waitFor();
    const cells = await row.locator("td").allTextContents();
    assert.match(cells[2], /^\d+\.\d\d %$/, "accuracy: " + cells);
    assert.match(cells[6], /less/, "the file is smaller: " + cells);
  }],
  ["finished jobs are listed", desk, async (page) => {
    await page.locator("#jobs li").first().waitFor();
    assert.match(await page.locator("#jobs").textContent(), /succeeded/);
  }],
  ["every variant answers a picture", desk, async (page) => {
    await page.getByRole("button", { name: model, exact: true }).click();
    await page.locator(`#variants tr[data-variant="${variant}"]`).waitFor();
    await page.setInputFiles("#file", picture);
    for (const v of ["original", variant]) {
      const row = page.locator(`#answers tr[data-variant="${v}"]`);
      await row.waitFor();
      assert.equal(await row.locator("td").nth(1).textContent(), label);
    }
  }],
  ["what each layer bears is shown by colour and number", desk, async (page) => {
    const table = page.locator("#jobs details");
    await table.locator("summary").click();
    const row = page.locator('#jobs .heat tr[data-layer="/conv2/Conv"]');
    await row.waitFor();
    const [half, nearly] = await row.locator("td").evaluateAll((cells) =>
      cells.map((c) => ({ said: c.textContent, hover: c.title, colour: getComputedStyle(c).backgroundColor })));
    assert.ok(Number(nearly.said) > Number(half.said), JSON.stringify([half, nearly]));
    assert.notEqual(nearly.colour, half.colour);
    assert.match(nearly.hover, /only this layer compressed: damage .*worst class .*\n.*all but this one/);
    assert.match(await table.locator("figcaption").textContent(), /sparsity=0.95: /);
    await page.evaluate(() => refresh());
    assert.ok(await row.isVisible(), "the table stays open when the list is made anew");
  }],
  ["a training shows how far it is, and how well it does", desk, async (page) => {
    const job = page.locator("#jobs li", { has: page.locator("figure") });
    await job.waitFor();
    // the list is made anew each second, and the time left is known a little later than the first epochs: read at once
    const ready = await page.waitForFunction(() => {
      const li = document.querySelector("#jobs figure")?.closest("li"), loss = li?.querySelector("polyline.loss");
      const bar = li?.querySelector("progress"), said = li?.querySelector("small")?.textContent;
      if (!loss || !bar || loss.getAttribute("points").split(" ").length < 3 || !(bar.value > 0 && bar.value < 1)) return null;
      if (!said.endsWith(" left")) return null;
      const box = li.querySelector("svg").getBoundingClientRect();
      return { said, caption: li.querySelector("figcaption").textContent, points: loss.getAttribute("points"),
        width: box.width, height: box.height };
    });
    const seen = await ready.jsonValue();
    assert.match(seen.said, /epoch \d+ of \d+.* left/);
    assert.match(seen.caption, /loss \d+\.\d{4}.*pictures\/s/);
    assert.ok(seen.width > 100 && seen.height > 40, JSON.stringify(seen));
    for (const [x, y] of seen.points.split(" ").map((p) => p.split(",").map(Number)))
      assert.ok(x >= 0 && x <= 320 && y >= 0 && y <= 80, seen.points);
  }],
  ["the page fits a phone", phone, async (page) => {
    await page.locator("#variants tbody tr").first().waitFor();
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(over <= 0, `scrolls ${over} px sideways`);
  }],
]) {
  try {
    await test(name, size, run);
  } catch (e) {
    failed++;
    console.log(`not ok ${name}\n${e.stack}`);
  }
}
await browser.close();
process.exit(failed ? 1 : 0);
