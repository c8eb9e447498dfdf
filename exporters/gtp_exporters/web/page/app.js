// The page. Texts of site.json come from a model's manifest: they are only ever set as text, never as markup.

import { drawPanels, panelsOf } from "./drawing.js";
import { fromRGBA, pixels, prepare, withoutExif } from "./images.js";
import { argmax, compare, probabilities } from "./parity.js";

const TOP = 5;
const SECONDS = 4; // of timing
const ROUNDS = 10; // at least
const LARGEST = 1 << 26; // pixels of an image
const $ = (id) => document.getElementById(id);
const percent = (value, digits = 1) => (value === null ? "–" : `${(100 * value).toFixed(digits)} %`);
const state = document.documentElement.dataset; // what came out, for programs: parity, ratio, image
const TYPES = { uint8: Uint8Array, float32: Float32Array, int32: Int32Array };

// The worker does one thing at a time.
class Runner {
  constructor() {
    this.worker = new Worker("worker.js", { type: "module" });
    this.waiting = new Map();
    this.last = Promise.resolve();
    this.count = 0;
    this.worker.onmessage = ({ data }) => this.answer(data);
    this.worker.onerror = (event) => this.waiting.forEach(({ fail }) => fail(new Error(event.message || "the worker ended")));
  }

  answer({ id, result, error, progress }) {
    const call = this.waiting.get(id);
    if (progress !== undefined) return call.tell(progress);
    this.waiting.delete(id);
    return error === undefined ? call.done(result) : call.fail(new Error(error));
  }

  call(name, argument, tell = () => {}) {
    const next = this.last.catch(() => {}).then(() => new Promise((done, fail) => {
      const id = this.count++;
      this.waiting.set(id, { done, fail, tell });
      this.worker.postMessage({ id, name, argument });
    }));
    this.last = next;
    return next;
  }

  end() {
    this.worker.terminate();
    this.waiting.forEach(({ fail }) => fail(new Error("ended")));
  }
}

let site = null;
let pack = {};
let runner = null;
let shown = -1; // image of the pack
let stream = null; // of the camera

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function fact(value, text, className = "") {
  const made = element("div", "", "fact");
  made.append(element("b", value, className), element("span", text));
  return made;
}

const say = (text, className = "") => { $("status").textContent = text; $("status").className = className; };

function showProgress(share) {
  $("progress").hidden = share === null;
  $("progress").value = share ?? 0;
}

async function readSite() {
  const facts = await fetch("site.json");
  if (!facts.ok) throw new Error(`site.json: the server answers ${facts.status}`);
  site = await facts.json();
  const content = await (await fetch("pack.bin")).arrayBuffer();
  if (content.byteLength !== site.files["pack.bin"].size) throw new Error("pack.bin is cut off: copy the site again");
  for (const [name, { dtype, shape, offset }] of Object.entries(site.pack)) {
    const length = shape.reduce((product, axis) => product * axis, 1);
    pack[name] = { shape, data: new TYPES[dtype](content, offset, length) };
  }
}

function showModel() {
  const { model, graphs } = site;
  document.title = `${model.title}: gtp-export`;
  $("title").textContent = model.title;
  $("about").textContent = `${model.timm}, method ${model.method}, ${graphs.model.file} (${graphs.model.precision})`;
  $("random").hidden = model.weights.source !== "random";
  $("random").textContent = `The weights are random (${model.weights.detail}): answers and classes mean nothing.`;
  const sizes = Object.entries(site.files).filter(([name]) => name.startsWith("model/") || name.endsWith(".wasm"));
  const listed = sizes.map(([name, { size }]) => `${name} ${(size / 1e6).toFixed(1)} MB`).join(", ");
  $("footer").textContent = `Made by gtp-export, with ONNX Runtime Web ${site.ort.version}. Photos and frames stay on this device. ${listed}.`;
}

async function offerWebGPU() {
  const input = document.querySelector("input[value=webgpu]");
  if (!site.ort.webgpu) {
    $("webgpu").textContent = "not in this site (--no-webgpu)";
    return;
  }
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter) return;
  input.disabled = false;
  const { vendor, architecture, description } = adapter.info ?? {};
  $("webgpu").textContent = description || [vendor, architecture].filter(Boolean).join(" ") || "GPU";
}

// Arrays of the pack whose names begin so, by the rest of the name.
const packed = (prefix) => Object.fromEntries(
  Object.entries(pack).filter(([name]) => name.startsWith(prefix)).map(([name, array]) => [name.slice(prefix.length), array]),
);
const byLayer = (prefix) => {
  const arrays = packed(prefix);
  return Object.keys(arrays).length ? site.model.num_prop.map((_, layer) => arrays[layer]) : null;
};

async function prove(role) {
  const { graphs, model } = site;
  const graph = graphs[role];
  const expected = packed(graph.role === "dense" ? "dense/" : "output/");
  if (!Object.keys(expected).length) return null;
  say(`Running ${graph.file} on the ${pack.images.shape[0]} images of the parity pack …`);
  const data = prepare(pack.images.data, graph.input.dtype, model.preprocessing);
  const outputs = await runner.call("run", { role, data }, showProgress);
  const reduces = graph.role !== "dense" && model.num_prop.some(Boolean);
  const kept = reduces && outputs.propagated ? {
    propagated: outputs.propagated,
    receivedBy: outputs.received_by,
    expected: byLayer("propagated/"),
    receivers: byLayer("received_by/"),
    gaps: byLayer("gap/"),
    tokens: model.grid[0] * model.grid[1],
  } : null;
  const result = compare(outputs, expected, { classes: model.classes > 0, activation: model.activation, limits: graph.limits, kept });
  return { role, graph, traced: !reduces || kept !== null, ...result };
}

function showParity(results) {
  const [main] = results;
  $("parity-facts").replaceChildren(
    fact(main.ok ? "ok" : "FAILED", `parity with PyTorch, ${main.images} images`, main.ok ? "ok" : "failed"),
    ...(main.kept === null ? [] : [fact(percent(main.kept), "of images keep the same tokens in every layer")]),
    ...(main.receivers === null ? [] : [fact(percent(main.receivers), "of these merge them into the same tokens")]),
    fact(main.errorAll.toExponential(1), `largest error, as a share of the largest ${site.model.classes ? "logit" : "feature"}`),
  );
  const rows = results.map((result) => {
    const row = element("tr");
    const values = [result.images, percent(result.top1), percent(result.kept), percent(result.receivers), result.errorAll.toExponential(1), result.cosine.toFixed(6)];
    row.append(element("td", result.graph.file), ...values.map((value) => element("td", String(value), "n")));
    row.append(element("td", result.ok ? "ok" : "FAILED", result.ok ? "ok" : "failed"));
    return row;
  });
  $("parity-table").querySelector("tbody").replaceChildren(...rows);
  $("parity-table").hidden = false;
  const problems = results.flatMap((result) => result.problems.map((text) => `${result.graph.file}: ${text}`));
  $("problems").replaceChildren(...problems.map((text) => element("li", text)));
  const untraced = main.traced ? "" : " Kept sets were not compared: the graph does not output the tokens that leave (exported with --no-trace).";
  $("parity-note").textContent = `Images of the pack: ${site.model.reference}. Limits are those of the runtime for ${main.graph.precision}.${untraced}`;
  const ok = results.every((result) => result.ok);
  state.parity = ok ? "ok" : "failed";
  say(ok ? "Parity ok: this browser answers as PyTorch did." : "Parity FAILED: do not trust this page's answers here.", ok ? "ok" : "failed");
}

const input = (image) => prepare(image, site.graphs.model.input.dtype, site.model.preprocessing);
const packImage = (index) => {
  const [, height, width] = pack.images.shape;
  return { width, height, data: pack.images.data.subarray(index * height * width * 3, (index + 1) * height * width * 3) };
};

async function measure() {
  $("again").disabled = true;
  $("latency-note").textContent = "Measuring …";
  const batch = site.graphs.model.input.shape[0];
  const one = packImage(0).data;
  const images = new Uint8Array(batch * one.length);
  for (let at = 0; at < batch; at++) images.set(one, at * one.length);
  const { medians, rounds, repeats } = await runner.call("time", { data: input(images), seconds: SECONDS, atLeast: ROUNDS }, showProgress);
  showProgress(null);
  const of = batch > 1 ? ` for ${batch} images` : "";
  const facts = [fact(`${medians.model.toFixed(medians.model < 10 ? 2 : 0)} ms`, `${site.graphs.model.file}, median${of}`)];
  if (medians.dense !== undefined) {
    const ratio = medians.model / medians.dense;
    state.ratio = ratio.toFixed(4);
    facts.push(fact(`${medians.dense.toFixed(medians.dense < 10 ? 2 : 0)} ms`, `${site.graphs.dense.file}, median${of}`));
    facts.push(fact(ratio.toFixed(3), "of the dense model's latency"));
    facts.push(fact((site.graphs.model.macs / site.graphs.dense.macs).toFixed(3), "of its MACs"));
  }
  $("latency-facts").replaceChildren(...facts);
  const each = repeats > 1 ? `, each over ${repeats} runs` : "";
  const turns = medians.dense === undefined ? "" : " The graphs ran in turn; other work of this device changes both alike.";
  $("latency-note").textContent = `Medians of ${rounds} times${each}.${turns}`;
  $("again").disabled = false;
}

async function show(image, note) {
  const start = performance.now();
  const outputs = await runner.call("run", { role: "model", data: input(image.data) });
  const time = performance.now() - start;
  const { model, graphs } = site;
  const answer = outputs[graphs.model.answers[0]].data;
  $("image-note").textContent = `${note}, answered in ${time.toFixed(0)} ms.`;
  showClasses(model, answer);
  showTokens(model, outputs, image);
  state.image = note;
}

function showClasses(model, answer) {
  if (!model.classes || !Array.from(answer).every(Number.isFinite)) {
    const text = model.classes ? "The answers are not finite." : `This model has no classes: it gives features, ${answer.length} numbers.`;
    $("classes").replaceChildren(element("li", text));
    return;
  }
  const shares = probabilities(answer, model.activation);
  const order = shares.map((_, index) => index).sort((left, right) => shares[right] - shares[left] || left - right);
  $("classes").replaceChildren(...order.slice(0, TOP).map((index) => {
    const made = element("li");
    const bar = element("progress");
    bar.value = shares[index];
    bar.setAttribute("aria-hidden", "true");
    made.append(element("span", model.labels?.[index] ?? String(index)), element("span", percent(shares[index]), "share"), bar);
    return made;
  }));
  state.best = String(argmax(shares));
}

function showTokens(model, { propagated, received_by: receivers }, image) {
  const reduces = model.num_prop.some(Boolean);
  const key = [];
  if (!reduces) key.push("No token leaves.");
  else if (!propagated) key.push("Not known: the graph does not output the tokens that leave (exported with --no-trace).");
  else {
    key.push(element("i", "", "leave"), "patches that leave in this layer", element("i", "", "gone"), "patches that left before");
    key.push(receivers ? "; a line leads to the patch that received them, from a dot." : ". This method names no receivers, so none are drawn.");
  }
  $("tokens-note").replaceChildren(...key);
  const panels = reduces && propagated ? panelsOf(propagated.data, receivers?.data, model.num_prop, model.grid[0] * model.grid[1]) : [];
  drawPanels($("maps"), image, panels, model.grid);
}

async function showNext() {
  shown = (shown + 1) % pack.images.shape[0];
  const label = pack.labels ? `, class ${site.model.labels?.[pack.labels.data[shown]] ?? pack.labels.data[shown]}` : "";
  await show(packImage(shown), `Image ${shown} of the parity pack${label}`);
}

// What is drawn on a canvas, as RGB pixels.
function read(source, width, height) {
  if (width * height > LARGEST) throw new Error(`it has ${width} x ${height} pixels: choose a smaller one`);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  return fromRGBA(width, height, context.getImageData(0, 0, width, height).data);
}

async function readFile(file, preprocessing) {
  const content = preprocessing.exif ? file : new Blob([withoutExif(new Uint8Array(await file.arrayBuffer()))]);
  const bitmap = await createImageBitmap(content, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  return pixels(read(bitmap, bitmap.width, bitmap.height), preprocessing);
}

async function showFile(file) {
  stopCamera();
  try {
    $("image-note").textContent = "Reading …";
    await show(await readFile(file, site.model.preprocessing), file.name);
  } catch (error) {
    $("image-note").textContent = `${file.name} cannot be shown (${error.message}): choose a JPEG or PNG image.`;
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  $("video").hidden = true;
  $("camera").setAttribute("aria-pressed", "false");
  $("camera").textContent = "Use the camera";
}

async function startCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    $("image-note").textContent = `The camera cannot be used (${error.message}): allow it for this page, or choose a photo.`;
    return;
  }
  const video = $("video");
  video.srcObject = stream;
  video.hidden = false;
  $("camera").setAttribute("aria-pressed", "true");
  $("camera").textContent = "Stop the camera";
  await video.play();
  const running = stream;
  while (stream === running && stream !== null) {
    const frame = read(video, video.videoWidth, video.videoHeight);
    try {
      await show(pixels(frame, site.model.preprocessing), "Camera");
    } catch (error) {
      $("image-note").textContent = error.message;
      return stopCamera();
    }
    await new Promise(requestAnimationFrame);
  }
}

function enable() {
  $("file").disabled = false;
  $("next").disabled = false;
  const camera = Boolean(navigator.mediaDevices?.getUserMedia);
  $("camera").disabled = !camera;
  if (!camera) $("camera").textContent = "Camera: needs https or localhost";
}

async function start(provider) {
  delete state.parity;
  delete state.ratio;
  runner?.end();
  runner = new Runner();
  const mine = runner;
  try {
    say("Loading the graphs …");
    await runner.call("load", { graphs: site.graphs, files: site.files, provider }, showProgress);
    const results = [];
    for (const role of Object.keys(site.graphs)) results.push(await prove(role));
    showParity(results.filter(Boolean));
    enable();
    shown = -1;
    await showNext();
    await measure();
    state.done = provider;
  } catch (error) {
    if (mine !== runner) return; // another provider was chosen meanwhile
    state.parity ??= "error";
    showProgress(null);
    say(`It does not run here: ${error.message}`, "failed");
  }
}

$("file").addEventListener("change", ({ target }) => target.files.length && showFile(target.files[0]));
$("next").addEventListener("click", () => { stopCamera(); showNext(); });
$("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera()));
$("again").addEventListener("click", () => measure());
document.querySelectorAll("input[name=provider]").forEach((choice) => choice.addEventListener("change", () => start(choice.value)));

try {
  await readSite();
  showModel();
  await offerWebGPU();
  await start("wasm");
} catch (error) {
  state.parity = "error";
  showProgress(null);
  say(`The site cannot be read: ${error.message}`, "failed");
}
