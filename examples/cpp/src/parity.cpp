#include "parity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "error.h"
#include "probabilities.h"

namespace gtp {

namespace {

using Ids = std::vector<std::int64_t>;
using Flags = std::vector<bool>;

constexpr double TINY = 1e-30;

double share(const Flags& flags) {
  return static_cast<double>(std::count(flags.begin(), flags.end(), true)) / static_cast<double>(flags.size());
}

// Ids (N, width), of which columns from `start` to `end` are taken, image by image.
struct Columns {
  Ids values;
  std::size_t width;

  explicit Columns(const Array& array) : values(array.integers()), width(array.row_size()) {}
  Ids of(std::size_t image, std::size_t start, std::size_t end) const {
    const auto row = values.begin() + static_cast<std::ptrdiff_t>(image * width);
    return {row + static_cast<std::ptrdiff_t>(start), row + static_cast<std::ptrdiff_t>(end)};
  }
  Ids of(std::size_t image) const { return of(image, 0, width); }
};

Ids sorted(Ids ids) {
  std::sort(ids.begin(), ids.end());
  return ids;
}

// Return receivers in the order of the ids of the tokens that left.
Ids by_id(const Ids& left, const Ids& receivers) {
  std::vector<std::size_t> order(left.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return left[a] < left[b]; });
  Ids ordered;
  for (const std::size_t index : order) ordered.push_back(receivers[index]);
  return ordered;
}

struct Kept {
  Flags same, merged;  // images whose kept sets agree in every layer, and those whose receivers do as well
  std::vector<double> overlaps;
  bool names_receivers = false;
};

// Mean share of tokens that both remove in a layer, corrected for chance.
double overlap(const Columns& ours, const Columns& theirs, std::size_t start, std::size_t tokens, std::size_t images) {
  const std::size_t count = theirs.width;
  std::size_t hits = 0;
  for (std::size_t image = 0; image < images; ++image) {
    const Ids expected = theirs.of(image);
    for (const std::int64_t id : ours.of(image, start, start + count))
      hits += std::find(expected.begin(), expected.end(), id) != expected.end();
  }
  const double found = static_cast<double>(hits) / static_cast<double>(images * count);
  const double chance = tokens > start ? std::min(static_cast<double>(count) / static_cast<double>(tokens - start), 0.99) : 0;
  return (found - chance) / (1 - chance);
}

// The tokens that left so far tell which are kept: they are compared, as sets, after every layer.
Kept kept_sets(const Array& propagated, const Array* received_by, const Reference& reference) {
  const std::size_t images = reference.images.rows();
  const Columns ours(propagated);
  Kept kept{Flags(images, true), Flags(images, true), {}, received_by && reference.layers.front().received_by};
  std::vector<Ids> everything(images);
  std::size_t start = 0;
  for (const LayerReference& layer : reference.layers) {
    const Columns theirs(layer.propagated);
    const std::size_t end = start + theirs.width;
    if (end == start) continue;
    if (end > ours.width) throw Error("the file outputs fewer removed tokens than the parity pack has: export both again");
    kept.overlaps.push_back(overlap(ours, theirs, start, reference.tokens, images));
    for (std::size_t image = 0; image < images; ++image) {
      const Ids left = theirs.of(image);
      everything[image].insert(everything[image].end(), left.begin(), left.end());
      if (sorted(ours.of(image, 0, end)) != sorted(everything[image])) kept.same[image] = false;
      const bool alike = !kept.names_receivers || by_id(ours.of(image, start, end), Columns(*received_by).of(image, start, end)) ==
                                                      by_id(left, Columns(*layer.received_by).of(image));
      if (!kept.same[image] || !alike) kept.merged[image] = false;
    }
    start = end;
  }
  if (start != ours.width) throw Error("the file outputs more removed tokens than the parity pack has: export both again");
  return kept;
}

// Compare one output on all images: error over max|logit|, on those that agree and on all, and the smallest cosine.
void compare_output(const Array& output, const Array& expected, const Flags& alike, Parity& parity) {
  const std::vector<double> ours = output.numbers(), theirs = expected.numbers();
  const std::size_t width = expected.row_size();
  double largest = TINY;
  for (const double value : theirs) largest = std::max(largest, std::abs(value));
  for (std::size_t image = 0; image < alike.size(); ++image) {
    double error = 0, product = 0, own = 0, other = 0;
    for (std::size_t index = image * width; index < (image + 1) * width; ++index) {
      error = std::max(error, std::abs(ours[index] - theirs[index]));
      product += ours[index] * theirs[index];
      own += ours[index] * ours[index];
      other += theirs[index] * theirs[index];
    }
    parity.max_abs_fraction_all = std::max(parity.max_abs_fraction_all, error / largest);
    if (alike[image]) parity.max_abs_fraction = std::max(parity.max_abs_fraction.value_or(0), error / largest);
    parity.cosine = std::min(parity.cosine, product / std::max(std::sqrt(own) * std::sqrt(other), TINY));
  }
}

double top1(const Array& logits, const std::vector<std::int64_t>& labels) {
  Flags hits;
  for (std::size_t image = 0; image < labels.size(); ++image)
    hits.push_back(static_cast<std::int64_t>(best_class(row_of(logits, image))) == labels[image]);
  return share(hits);
}

void compare_classes(const Array& logits, const Reference& reference, const std::string& activation, Parity& parity) {
  const Array& expected = reference.outputs.at("logits");
  Flags agree;
  parity.kl = 0;
  for (std::size_t image = 0; image < parity.images; ++image) {
    const std::vector<double> ours = row_of(logits, image), theirs = row_of(expected, image);
    agree.push_back(same_classes(ours, theirs, activation));
    parity.kl = std::max(*parity.kl, divergence(theirs, ours, activation));
  }
  parity.top1_agreement = share(agree);
  if (reference.labels.empty()) return;
  parity.top1 = top1(logits, reference.labels);
  if (reference.dense_outputs.count("logits")) parity.dense_top1 = top1(reference.dense_outputs.at("logits"), reference.labels);
}

void add_gates(const ParityLimits& limits, Parity& parity) {
  const auto gate = [&parity](const char* what, std::optional<double> value, bool from_below, double limit) {
    if (value && !(from_below ? *value >= limit : *value <= limit))
      parity.problems.push_back(std::string(what) + " " + std::to_string(*value) + ", limit " + std::to_string(limit));
  };
  gate("share of images whose kept sets agree", parity.kept_agreement, true, limits.kept);
  gate("share of these whose receivers agree", parity.receiver_agreement, true, limits.kept);
  gate("overlap of the tokens that leave", parity.kept_overlap, true, limits.overlap);
  gate("largest error over max|output| where kept sets agree", parity.max_abs_fraction, false, limits.error);
  gate("smallest cosine", parity.cosine, true, limits.cosine);
  gate("largest divergence in nats", parity.kl, false, limits.kl);
  gate("share of images with the same best class", parity.top1_agreement, true, limits.top1);
}

void compare_kept(const Arrays& outputs, const Reference& reference, Parity& parity, Flags& alike) {
  const auto removes = [](const LayerReference& layer) { return layer.propagated.row_size() > 0; };
  if (!std::any_of(reference.layers.begin(), reference.layers.end(), removes)) return;
  if (!outputs.count("propagated")) {
    parity.notes.push_back("kept sets were not compared: the file does not output the removed tokens (exported with --no-trace)");
    return;
  }
  const auto receivers = outputs.find("received_by");
  const Kept kept = kept_sets(outputs.at("propagated"), receivers == outputs.end() ? nullptr : &receivers->second, reference);
  parity.kept_agreement = share(kept.same);
  parity.kept_overlap = std::accumulate(kept.overlaps.begin(), kept.overlaps.end(), 0.0) / static_cast<double>(kept.overlaps.size());
  const auto count = [](const Flags& flags) { return static_cast<double>(std::count(flags.begin(), flags.end(), true)); };
  if (kept.names_receivers && count(kept.same) > 0) parity.receiver_agreement = count(kept.merged) / count(kept.same);
  alike = kept.merged;
}

bool is_finite(const Array& array) {
  const std::vector<double> values = array.numbers();
  return std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); });
}

}  // namespace

Parity compare(const Arrays& outputs, const Reference& reference, const Manifest& manifest, const FileEntry& entry) {
  const auto limits = LIMITS.find(entry.precision);
  if (limits == LIMITS.end()) throw Error("no parity limits for the precision \"" + entry.precision + "\": update this program");
  const bool dense = entry.role == "dense";
  const Arrays& expected = dense ? reference.dense_outputs : reference.outputs;
  if (expected.empty()) throw Error("reference.npz has no outputs of the dense model: export again");
  Parity parity;
  parity.images = reference.images.rows();
  parity.precision = entry.precision;
  Flags alike(parity.images, true);
  if (!dense) compare_kept(outputs, reference, parity, alike);
  for (const auto& [name, values] : expected) {
    compare_output(outputs.at(name), values, alike, parity);
    if (!is_finite(outputs.at(name))) parity.problems.push_back("some values of " + name + " are not finite");
  }
  if (manifest.classes > 0 && expected.count("logits")) compare_classes(outputs.at("logits"), reference, manifest.activation, parity);
  add_gates(limits->second, parity);
  return parity;
}

}  // namespace gtp
