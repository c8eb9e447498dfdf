// Parity: whether a file answers here as eager PyTorch did where it was exported. docs/evaluating.md describes it, and
// gtp_runtime/parity.py is the same in Python.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "array.h"
#include "manifest.h"
#include "reference.h"

namespace gtp {

// How far a file may be from eager PyTorch: error as a fraction of max|logit| where kept sets agree, the shares of
// images whose kept sets and best classes agree, the overlap of the tokens that leave, cosine, and divergence in nats.
struct ParityLimits {
  double error, kept, overlap, cosine, kl, top1;
};

// Those of gtp_runtime/precisions.py; a test holds the two together.
inline const std::map<std::string, ParityLimits> LIMITS = {
    {"fp32", {1e-3, 0.75, 0.5, 0.999, 0.01, 0.99}},
    {"fp16", {3e-2, 0.5, 0.5, 0.999, 0.01, 0.99}},
    {"bf16", {1e-1, 0.0, 0.5, 0.9, 0.2, 0.95}},
    {"int8", {5e-1, 0.0, 0.5, 0.8, 1.0, 0.95}},
    {"int8_weights", {1e-1, 0.0, 0.5, 0.8, 1.0, 0.95}},
    {"int4_weights", {3e-1, 0.0, 0.5, 0.8, 1.0, 0.95}},
};

struct Parity {
  std::size_t images = 0;
  std::string precision;
  // Of Parity in gtp_runtime/parity.py; without a value where nothing could be compared.
  std::optional<double> top1_agreement, kept_agreement, kept_overlap, receiver_agreement, max_abs_fraction, kl, top1, dense_top1;
  double max_abs_fraction_all = 0, cosine = 1;
  std::vector<std::string> notes, problems;

  bool ok() const { return problems.empty(); }
};

// Compare the outputs of a file for all images of the reference. Throws Error: an unknown precision, kept sets that do not fit.
Parity compare(const Arrays& outputs, const Reference& reference, const Manifest& manifest, const FileEntry& entry);

}  // namespace gtp
