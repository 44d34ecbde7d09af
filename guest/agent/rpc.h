#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "json.h"

namespace tsvmm::agent {

/// The longest line that either side may send, in bytes, without its newline.
constexpr std::size_t kMaxLine = 4u << 20;
/// The deepest nesting of arrays and objects in a message. A configuration needs about ten.
constexpr std::size_t kMaxDepth = 64;

/// Cuts a byte stream into lines. Takes no more memory than one line and one read need.
class LineReader {
 public:
  /// Adds bytes. Returns false when a line is longer than kMaxLine: the connection is then of no use.
  bool append(std::string_view bytes);
  /// The next whole line without its newline, or nothing.
  std::optional<std::string> next();

 private:
  std::string buffer_;
  std::size_t scanned_ = 0;
};

/// JSON-RPC 2.0 error codes (section 5.1), and ours for a failed operation.
enum class RpcCode : int {
  kParse = -32700,
  kInvalidRequest = -32600,
  kMethodNotFound = -32601,
  kInvalidParams = -32602,
  kOperation = 1,
};

/// A request, or a notification where there is no id.
struct Request {
  std::optional<Json> id;
  std::string method;
  Json params;
};

/// Reads one line. A line that is no request yields the answer to send instead.
std::variant<Request, std::string> parseRequest(std::string_view line);

/// Each of these is one message, its newline included. Invalid UTF-8 in a string is replaced by U+FFFD.
std::string encodeResult(const Json& id, const Json& result);
std::string encodeError(const Json& id, RpcCode code, std::string_view message, const Json& data = nullptr);
std::string encodeNotification(std::string_view method, const Json& params);

}  // namespace tsvmm::agent
