// Latency: files are timed in turn in one process, so that noise of the machine affects all of them.
#pragma once

#include <functional>
#include <vector>

namespace gtp {

struct Latency {
  std::size_t runs = 0;
  double p50_ms = 0, p90_ms = 0, p99_ms = 0;
};

// Time callables in turn, about `seconds` in total after a warm-up, and at least 10 runs of each.
std::vector<Latency> in_turn(const std::vector<std::function<void()>>& runs, double seconds);

}  // namespace gtp
