// Runs the graphs, so that the page stays alive meanwhile. Messages are {id, name, arguments}; answers {id, result} or
// {id, error}, and {id, progress} on the way.

let ort = null;
const sessions = {};

const median = (values) => {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

async function fetched(name, { size, sha256 }, progress) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: the server answers ${response.status}`);
  const content = new Uint8Array(size);
  const reader = response.body.getReader();
  let read = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (read + part.value.length > size) throw new Error(`${name} is longer than site.json says: copy the site again`);
    content.set(part.value, read);
    read += part.value.length;
    progress(read);
  }
  if (read !== size) throw new Error(`${name} is cut off at ${read} of ${size} bytes: copy the site again`);
  if (crypto.subtle) { // in secure contexts: https, localhost
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hex !== sha256) throw new Error(`${name} is damaged (sha256 differs): copy the site again`);
  }
  return content;
}

const calls = {
  // Make a session for each graph. `provider` is "wasm" or "webgpu".
  async load({ graphs, files, provider }, tell) {
    ort = await import(provider === "webgpu" ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
    ort.env.wasm.wasmPaths = new URL("./ort/", self.location.href).href;
    ort.env.wasm.numThreads = 1; // more need headers that few static servers send
    ort.env.logLevel = "error";
    const names = Object.values(graphs).flatMap((graph) => [graph.file, graph.data]).filter(Boolean);
    const total = names.reduce((sum, name) => sum + files[`model/${name}`].size, 0);
    let before = 0;
    const read = async (name) => {
      const path = `model/${name}`;
      const content = await fetched(path, files[path], (bytes) => tell((before + bytes) / total));
      before += content.length;
      return content;
    };
    for (const [role, graph] of Object.entries(graphs)) {
      const content = await read(graph.file);
      const externalData = graph.data ? [{ path: graph.data, data: await read(graph.data) }] : undefined;
      const options = { executionProviders: [provider], externalData, logSeverityLevel: 3 };
      sessions[role] = { session: await ort.InferenceSession.create(content, options), graph };
    }
  },

  // Run N prepared images; returns {name: {shape: [N, ...], data}}. The last batch is filled up with its last image.
  async run({ role, data }, tell) {
    const { session, graph: { input } } = sessions[role];
    const batch = input.shape[0];
    const each = input.shape.slice(1).reduce((product, length) => product * length, 1);
    const images = data.length / each;
    const results = {};
    for (let start = 0; start < images; start += batch) {
      const count = Math.min(batch, images - start);
      const part = new data.constructor(batch * each);
      for (let at = 0; at < batch; at++) {
        const image = start + Math.min(at, count - 1);
        part.set(data.subarray(image * each, (image + 1) * each), at * each);
      }
      const outputs = await session.run({ [input.name]: new ort.Tensor(input.dtype, part, input.shape) });
      for (const [name, tensor] of Object.entries(outputs)) {
        const length = tensor.data.length / batch;
        const floats = tensor.type === "float32" || tensor.type === "float64";
        results[name] ??= { shape: [images, ...tensor.dims.slice(1)], data: new (floats ? Float32Array : Int32Array)(images * length) };
        for (let at = 0; at < count * length; at++) results[name].data[start * length + at] = Number(tensor.data[at]);
      }
      tell((start + count) / images);
    }
    return results;
  },

  // Time the graphs in turn, for about so many seconds. Browsers make their clocks coarse, so what is short runs
  // several times for one time of it.
  async time({ data, seconds, atLeast }, tell) {
    const entries = Object.entries(sessions);
    const feeds = ({ input }) => ({ [input.name]: new ort.Tensor(input.dtype, data, input.shape) });
    const timed = async ({ session, graph }, repeats) => {
      const start = performance.now();
      for (let run = 0; run < repeats; run++) await session.run(feeds(graph));
      return (performance.now() - start) / repeats;
    };
    let slowest = 0;
    for (const [, entry] of entries) {
      await timed(entry, 2);
      slowest = Math.max(slowest, await timed(entry, 3));
    }
    const repeats = Math.max(1, Math.ceil(20 / slowest));
    const times = Object.fromEntries(entries.map(([role]) => [role, []]));
    const start = performance.now();
    for (let round = 0; round < atLeast || performance.now() - start < 1000 * seconds; round++) {
      for (const [role, entry] of entries) times[role].push(await timed(entry, repeats));
      tell(Math.min(1, Math.max((performance.now() - start) / (1000 * seconds), 0)));
    }
    const medians = Object.fromEntries(entries.map(([role]) => [role, median(times[role])]));
    return { medians, rounds: Object.values(times)[0].length, repeats };
  },
};

self.onmessage = async ({ data: { id, name, argument } }) => {
  try {
    const result = await calls[name](argument, (progress) => self.postMessage({ id, progress }));
    self.postMessage({ id, result });
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};
