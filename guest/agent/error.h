#pragma once

#include <cerrno>
#include <stdexcept>
#include <string>
#include <utility>

namespace tsvmm::agent {

/// A request's parameters are wrong (JSON-RPC error -32602). The message names the field.
class ParamsError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An operation failed (JSON-RPC error 1). Carries the errno and the path where they help; 0 and "" where
/// not.
class OperationError : public std::runtime_error {
 public:
  explicit OperationError(const std::string& message, int error = 0, std::string path = {})
      : std::runtime_error(message), error_(error), path_(std::move(path)) {}

  int error() const { return error_; }
  const std::string& path() const { return path_; }

 private:
  int error_;
  std::string path_;
};

/// Builds "WHAT PATH: the errno's text" from the current errno, or from the one given.
OperationError systemError(const std::string& what, const std::string& path, int error = errno);

}  // namespace tsvmm::agent
