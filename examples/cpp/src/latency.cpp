#include "latency.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace gtp {

namespace {

using Clock = std::chrono::steady_clock;

constexpr double WARM_UP = 0.2;  // seconds
constexpr std::size_t WARM_UP_RUNS = 3, LEAST_RUNS = 10;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void warm_up(const std::function<void()>& run) {
  const Clock::time_point start = Clock::now();
  for (std::size_t done = 0; done < WARM_UP_RUNS || seconds_since(start) < WARM_UP; ++done) run();
}

// The value that a share of the sorted times does not exceed, between two of them in proportion.
double percentile(const std::vector<double>& sorted, double part) {
  const double place = part * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(std::floor(place)), high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (place - std::floor(place)) * (sorted[high] - sorted[low]);
}

}  // namespace

std::vector<Latency> in_turn(const std::vector<std::function<void()>>& runs, double seconds) {
  for (const auto& run : runs) warm_up(run);
  std::vector<std::vector<double>> times(runs.size());
  const Clock::time_point start = Clock::now();
  while (times.front().size() < LEAST_RUNS || seconds_since(start) < seconds)
    for (std::size_t index = 0; index < runs.size(); ++index) {
      const Clock::time_point before = Clock::now();
      runs[index]();
      times[index].push_back(seconds_since(before) * 1e3);
    }
  std::vector<Latency> results;
  for (std::vector<double>& taken : times) {
    std::sort(taken.begin(), taken.end());
    results.push_back({taken.size(), percentile(taken, 0.5), percentile(taken, 0.9), percentile(taken, 0.99)});
  }
  return results;
}

}  // namespace gtp
