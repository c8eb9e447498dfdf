// Errors and the exit codes that a command ends with, those of gtp-export (docs/artifacts.md).
#pragma once

#include <stdexcept>
#include <string>

namespace gtp {

enum ExitCode { DONE = 0, FAILED = 1, USAGE = 2, GATE_FAILED = 3, MISSING = 4 };

// What is wrong and what to do, in one line.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ExitCode code = FAILED) : std::runtime_error(message), exit_code(code) {}
  ExitCode exit_code;
};

}  // namespace gtp
