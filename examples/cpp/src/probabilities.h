// Classes of one image's logits. One logit is two classes: 0 and 1. With the activation "sigmoid" each class has a
// probability by itself. gtp_runtime/accuracy.py is the same in Python.
#pragma once

#include <string>
#include <vector>

#include "array.h"

namespace gtp {

std::vector<double> row_of(const Array& array, std::size_t image);

std::size_t best_class(const std::vector<double>& logits);

std::vector<double> probabilities(const std::vector<double>& logits, const std::string& activation);

// Whether two answers are the same: the best class, or with "sigmoid" all classes above 0.5.
bool same_classes(const std::vector<double>& left, const std::vector<double>& right, const std::string& activation);

// Kullback-Leibler divergence of the class probabilities from the expected ones, in nats.
double divergence(const std::vector<double>& expected, const std::vector<double>& actual, const std::string& activation);

}  // namespace gtp
