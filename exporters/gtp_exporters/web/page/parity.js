// Parity as gtp_runtime.parity reports it: the same measures, and the same limits, which site.json brings.
// Arrays are {shape: [N, ...], data}.

const size = (array) => array.data.length / array.shape[0];
const row = (array, image) => array.data.subarray(image * size(array), (image + 1) * size(array));
const mean = (values) => values.reduce((total, value) => total + value, 0) / values.length;
const share = (flags) => mean(flags.map(Number));
const ascending = (ids) => Array.from(ids, Number).sort((left, right) => left - right);
const equal = (left, right) => left.length === right.length && left.every((value, at) => value === right[at]);

export function argmax(values) {
  let best = 0;
  for (let at = 1; at < values.length; at++) if (values[at] > values[best]) best = at;
  return best;
}

const asClasses = (logits) => (logits.length === 1 ? [0, logits[0]] : Array.from(logits));
const logAddExp = (x) => Math.max(0, x) + Math.log1p(Math.exp(-Math.abs(x))); // log(1 + exp(x))

function logSoftmax(logits) {
  const highest = logits.reduce((best, value) => Math.max(best, value), -Infinity);
  const total = Math.log(logits.reduce((sum, value) => sum + Math.exp(value - highest), 0));
  return logits.map((value) => value - highest - total);
}

export function probabilities(logits, activation) {
  if (activation === "sigmoid" && logits.length !== 1) return Array.from(logits, (value) => Math.exp(-logAddExp(-value)));
  return logSoftmax(asClasses(logits)).map(Math.exp);
}

// Kullback-Leibler divergence of the class probabilities from the expected ones, in nats.
function divergence(expected, actual, activation) {
  if (activation === "sigmoid" && expected.length !== 1) {
    const terms = Array.from(expected, (wide, at) => {
      const other = actual[at];
      const present = Math.exp(-logAddExp(-wide)) * (logAddExp(-other) - logAddExp(-wide));
      return present + Math.exp(-logAddExp(wide)) * (logAddExp(other) - logAddExp(wide));
    });
    return terms.reduce((sum, value) => sum + value, 0);
  }
  const [left, right] = [logSoftmax(asClasses(expected)), logSoftmax(asClasses(actual))];
  return left.reduce((sum, value, at) => sum + Math.exp(value) * (value - right[at]), 0);
}

function cosine(left, right) {
  let [product, one, other] = [0, 0, 0];
  for (let at = 0; at < left.length; at++) {
    product += left[at] * right[at];
    one += left[at] ** 2;
    other += right[at] ** 2;
  }
  return product / Math.max(Math.sqrt(one) * Math.sqrt(other), 1e-30);
}

function sameAnswer(left, right, activation) {
  if (activation === "sigmoid" || left.length === 1) return left.every((value, at) => value > 0 === right[at] > 0);
  return argmax(left) === argmax(right);
}

function overlap(actual, expected, tokens) {
  const other = new Set(expected);
  const common = actual.filter((id) => other.has(id)).length / actual.length;
  const chance = tokens > 0 ? Math.min(expected.length / tokens, 0.99) : 0;
  return (common - chance) / (1 - chance);
}

// Which images keep the same tokens in every layer, which of them merge them into the same ones, and each layer.
// `kept` is {propagated, receivedBy, expected: [layer], receivers: [layer] or null, gaps: [layer], tokens}.
export function keptSets(kept) {
  const images = kept.propagated.shape[0];
  const agree = Array(images).fill(true);
  const merged = Array(images).fill(true);
  const named = Boolean(kept.receivedBy && kept.receivers);
  const layers = [];
  let start = 0;
  kept.expected.forEach((ids, layer) => {
    const end = start + size(ids);
    if (end === start) return;
    const same = [];
    const alike = [];
    const overlaps = [];
    for (let image = 0; image < images; image++) {
      const actual = Array.from(row(kept.propagated, image), Number);
      const before = kept.expected.slice(0, layer + 1).flatMap((part) => Array.from(row(part, image)));
      same.push(equal(ascending(actual.slice(0, end)), ascending(before)));
      const [ours, theirs] = [actual.slice(start, end), Array.from(row(ids, image))];
      overlaps.push(overlap(ours, theirs, kept.tokens - start));
      alike.push(!named || sameReceivers(ours, Array.from(row(kept.receivedBy, image), Number).slice(start, end),
        theirs, Array.from(row(kept.receivers[layer], image))));
    }
    const gaps = Array.from(kept.gaps[layer].data);
    const flipped = gaps.filter((_, image) => agree[image] && !same[image]);
    for (let image = 0; image < images; image++) {
      agree[image] = agree[image] && same[image];
      merged[image] = merged[image] && agree[image] && alike[image];
    }
    const flippedGap = flipped.length ? Math.max(...flipped) : null;
    layers.push({ layer, agreement: share(same), overlap: mean(overlaps), flippedGap });
    start = end;
  });
  return { agree, merged, layers, named };
}

function sameReceivers(left, receivers, expectedLeft, expectedReceivers) {
  const into = new Map(expectedLeft.map((id, at) => [id, expectedReceivers[at]]));
  return left.every((id, at) => into.get(id) === receivers[at]);
}

// Compare outputs by name with the expected ones. Options: classes (whether they are logits), activation, limits, kept.
export function compare(outputs, expected, { classes, activation, limits, kept }) {
  const names = Object.keys(expected);
  const images = expected[names[0]].shape[0];
  const numbers = Array.from({ length: images }, (_, image) => image);
  const sets = kept?.propagated ? keptSets(kept) : null;
  const layers = sets?.layers ?? [];
  const alike = sets ? sets.merged : numbers.map(() => true);
  const errors = [];
  const cosines = [];
  let finite = true;
  for (const name of names) {
    const [ours, theirs] = [outputs[name], expected[name]];
    if (!equal(ours.shape, theirs.shape)) throw new Error(`${name} is ${ours.shape}, the pack has ${theirs.shape}`);
    finite &&= ours.data.every(Number.isFinite);
    const largest = theirs.data.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
    for (const image of numbers) {
      const [left, right] = [row(ours, image), row(theirs, image)];
      const error = left.reduce((most, value, at) => Math.max(most, Math.abs(value - right[at])), 0) / largest;
      errors.push({ error, alike: alike[image] });
      cosines.push(cosine(left, right));
    }
  }
  const pairs = numbers.map((image) => [row(outputs[names[0]], image), row(expected[names[0]], image)]);
  const onAlike = errors.filter((entry) => entry.alike).map((entry) => entry.error);
  const same = sets ? numbers.filter((image) => sets.agree[image]) : [];
  const result = {
    images,
    top1: classes ? share(pairs.map(([ours, theirs]) => sameAnswer(ours, theirs, activation))) : null,
    kept: layers.length ? share(sets.agree) : null,
    receivers: layers.length && sets.named && same.length ? share(same.map((image) => sets.merged[image])) : null,
    overlap: layers.length ? mean(layers.map((layer) => layer.overlap)) : null,
    error: onAlike.length ? Math.max(...onAlike) : null,
    errorAll: Math.max(...errors.map((entry) => entry.error)),
    cosine: Math.min(...cosines),
    kl: classes ? Math.max(...pairs.map(([ours, theirs]) => divergence(theirs, ours, activation))) : null,
    layers,
  };
  const problems = failedGates(result, limits, finite);
  return { ok: problems.length === 0, ...result, problems };
}

const percent = (value) => `${(100 * value).toFixed(1)} %`;

function failedGates(result, limits, finite) {
  const gates = [
    [result.kept, limits.kept, true, "kept sets agree on", percent],
    [result.receivers, limits.kept, true, "of images with the same kept sets, receivers agree on", percent],
    [result.overlap, limits.overlap, true, "overlap of the tokens that leave", (value) => value.toFixed(2)],
    [result.error, limits.error, false, "error where kept sets agree, as a share of the largest,", (value) => value.toExponential(1)],
    [result.cosine, limits.cosine, true, "cosine", (value) => value.toFixed(5)],
    [result.kl, limits.kl, false, "divergence in nats", (value) => value.toPrecision(3)],
    [result.top1, limits.top1, true, "top-1 agrees on", percent],
  ];
  const problems = finite ? [] : ["some outputs are not finite"];
  for (const [value, limit, atLeast, what, format] of gates) {
    if (value === null || (atLeast ? value >= limit : value <= limit)) continue;
    problems.push(`${what} ${format(value)}, limit ${format(limit)}`);
  }
  return problems;
}
