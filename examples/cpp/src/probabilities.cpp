#include "probabilities.h"

#include <algorithm>
#include <cmath>

namespace gtp {

namespace {

// log(1 + exp(x)), for any x
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

std::vector<double> as_classes(const std::vector<double>& logits) {
  return logits.size() == 1 ? std::vector<double>{0, logits[0]} : logits;
}

std::vector<double> log_softmax(const std::vector<double>& logits) {
  std::vector<double> classes = as_classes(logits);
  const double highest = *std::max_element(classes.begin(), classes.end());
  double sum = 0;
  for (const double logit : classes) sum += std::exp(logit - highest);
  for (double& logit : classes) logit -= highest + std::log(sum);
  return classes;
}

bool is_by_class(const std::vector<double>& logits, const std::string& activation) {
  return activation == "sigmoid" && logits.size() != 1;
}

}  // namespace

std::vector<double> row_of(const Array& array, std::size_t image) {
  Array row;
  row.dtype = array.dtype;
  const auto start = array.bytes.begin() + static_cast<std::ptrdiff_t>(image * array.row_bytes());
  row.bytes.assign(start, start + static_cast<std::ptrdiff_t>(array.row_bytes()));
  return row.numbers();
}

std::size_t best_class(const std::vector<double>& logits) {
  const std::vector<double> classes = as_classes(logits);
  return static_cast<std::size_t>(std::max_element(classes.begin(), classes.end()) - classes.begin());
}

std::vector<double> probabilities(const std::vector<double>& logits, const std::string& activation) {
  const bool by_class = is_by_class(logits, activation);
  std::vector<double> shares = by_class ? logits : log_softmax(logits);
  for (double& value : shares) value = std::exp(by_class ? -softplus(-value) : value);
  return shares;
}

bool same_classes(const std::vector<double>& left, const std::vector<double>& right, const std::string& activation) {
  if (activation != "sigmoid" && left.size() != 1) return best_class(left) == best_class(right);
  return std::equal(left.begin(), left.end(), right.begin(), [](double a, double b) { return (a > 0) == (b > 0); });
}

double divergence(const std::vector<double>& expected, const std::vector<double>& actual, const std::string& activation) {
  double sum = 0;
  if (is_by_class(expected, activation)) {
    for (std::size_t index = 0; index < expected.size(); ++index) {
      const double present = -softplus(-expected[index]), absent = -softplus(expected[index]);
      sum += std::exp(present) * (present + softplus(-actual[index])) + std::exp(absent) * (absent + softplus(actual[index]));
    }
    return sum;
  }
  const std::vector<double> left = log_softmax(expected), right = log_softmax(actual);
  for (std::size_t index = 0; index < left.size(); ++index) sum += std::exp(left[index]) * (left[index] - right[index]);
  return sum;
}

}  // namespace gtp
