#include "rpc.h"

#include <utility>

namespace tsvmm::agent {

namespace {

/// Whether arrays and objects nest deeper than kMaxDepth. The parser itself does not recurse, but writing
/// does.
bool tooDeep(std::string_view text) {
  std::size_t depth = 0;
  bool inString = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (inString) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        inString = false;
      }
    } else if (c == '"') {
      inString = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) {
        return true;
      }
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

std::string encode(const Json& message) {
  std::string line = message.dump(-1, ' ', false, Json::error_handler_t::replace);
  line.push_back('\n');
  return line;
}

}  // namespace

bool LineReader::append(std::string_view bytes) {
  buffer_.append(bytes);
  if (buffer_.size() <= kMaxLine) {
    return true;
  }
  // Over the limit only if the first line is: later ones are cut off as the earlier are taken.
  const std::size_t end = buffer_.find('\n', scanned_);
  if (end == std::string::npos) {
    scanned_ = buffer_.size();
    return false;
  }
  return end <= kMaxLine;
}

std::optional<std::string> LineReader::next() {
  const std::size_t end = buffer_.find('\n', scanned_);
  if (end == std::string::npos) {
    scanned_ = buffer_.size();
    return std::nullopt;
  }
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  scanned_ = 0;
  return line;
}

std::variant<Request, std::string> parseRequest(std::string_view line) {
  if (tooDeep(line)) {
    return encodeError(nullptr, RpcCode::kParse, "the message nests too deeply");
  }
  Json message = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (message.is_discarded()) {
    return encodeError(nullptr, RpcCode::kParse, "the message is not JSON");
  }
  if (!message.is_object()) {
    return encodeError(nullptr, RpcCode::kInvalidRequest, "the message is not an object");
  }
  Request request;
  if (const auto id = message.find("id"); id != message.end()) {
    if (!id->is_string() && !id->is_number() && !id->is_null()) {
      return encodeError(nullptr, RpcCode::kInvalidRequest, "id: expected a string or a number");
    }
    request.id = *id;
  }
  const Json answerTo = request.id.value_or(nullptr);
  const auto version = message.find("jsonrpc");
  if (version == message.end() || *version != "2.0") {
    return encodeError(answerTo, RpcCode::kInvalidRequest, "jsonrpc: expected \"2.0\"");
  }
  const auto method = message.find("method");
  if (method == message.end() || !method->is_string()) {
    return encodeError(answerTo, RpcCode::kInvalidRequest, "method: expected a string");
  }
  request.method = method->get<std::string>();
  request.params = Json::object();
  if (const auto params = message.find("params"); params != message.end()) {
    if (!params->is_object()) {
      return encodeError(answerTo, RpcCode::kInvalidParams, "params: expected an object");
    }
    request.params = std::move(*params);
  }
  return request;
}

std::string encodeResult(const Json& id, const Json& result) {
  return encode({{"jsonrpc", "2.0"}, {"id", id}, {"result", result}});
}

std::string encodeError(const Json& id, RpcCode code, std::string_view message, const Json& data) {
  Json error = {{"code", static_cast<int>(code)}, {"message", message}};
  if (!data.is_null()) {
    error["data"] = data;
  }
  return encode({{"jsonrpc", "2.0"}, {"id", id}, {"error", std::move(error)}});
}

std::string encodeNotification(std::string_view method, const Json& params) {
  return encode({{"jsonrpc", "2.0"}, {"method", method}, {"params", params}});
}

}  // namespace tsvmm::agent
