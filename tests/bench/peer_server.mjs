// What one would write without us: node:http and onnxruntime-node behind the same inference route.
//   ORT_FOLDER=… node peer_server.mjs MODEL.onnx [THREADS]
// Prints "listening on http://127.0.0.1:PORT". ONNX Runtime's answer is checked by who runs this (serving.py).
import http from "node:http";
import { createRequire } from "node:module";

const ort = createRequire(process.env.ORT_FOLDER + "/")("onnxruntime-node");
const [file, threads] = process.argv.slice(2);
const session = await ort.InferenceSession.create(file, {
  intraOpNumThreads: Number(threads ?? 1), interOpNumThreads: 1, graphOptimizationLevel: "all", logSeverityLevel: 3,
});

async function infer(body) {
  const request = JSON.parse(body);
  const feeds = {};
  for (const x of request.inputs) feeds[x.name] = new ort.Tensor("float32", Float32Array.from(x.data), x.shape);
  const results = await session.run(feeds);
  const outputs = session.outputNames.map((name) => ({
    name, datatype: "FP32", shape: results[name].dims, data: Array.from(results[name].data),
  }));
  return JSON.stringify({ model_name: "peer", outputs });
}

const server = http.createServer((request, reply) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", async () => {
    try {
      const text = await infer(Buffer.concat(chunks).toString());
      reply.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
      reply.end(text);
    } catch (error) {
      reply.writeHead(400, { "Content-Type": "text/plain" });
      reply.end(String(error));
    }
  });
});
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
