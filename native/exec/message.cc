#include "exec/message.h"

#include <cstdint>

namespace tsvmm::exec {
namespace {

constexpr unsigned kMostDepth = 64;

/// Reads one JSON text from its start to its end. Each function takes what it is named after off the front,
/// and is false where something else is there.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  bool atEnd() {
    space();
    return rest_.empty();
  }
  /// Calls `onMember(name)` for each; it has to take the value.
  template <typename OnMember>
  bool object(OnMember onMember) {
    if (!take('{')) {
      return false;
    }
    if (take('}')) {
      return true;
    }
    do {
      std::string name;
      if (!string(name) || !take(':') || !onMember(name)) {
        return false;
      }
    } while (take(','));
    return take('}');
  }
  bool string(std::string& text);
  bool integer(int64_t& number);
  bool any(unsigned depth = 0);

 private:
  void space() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\t' || rest_[0] == '\r' || rest_[0] == '\n')) {
      rest_.remove_prefix(1);
    }
  }
  bool take(char character) {
    space();
    if (rest_.empty() || rest_[0] != character) {
      return false;
    }
    rest_.remove_prefix(1);
    return true;
  }
  bool word(std::string_view word) {
    if (rest_.substr(0, word.size()) != word) {
      return false;
    }
    rest_.remove_prefix(word.size());
    return true;
  }
  bool array(unsigned depth);
  bool number();
  bool escape(std::string& text);
  bool hex(uint32_t& unit);

  std::string_view rest_;
};

void appendUtf8(std::string& text, uint32_t point) {
  const auto byte = [&text](uint32_t value) { text.push_back(static_cast<char>(value)); };
  if (point < 0x80) {
    byte(point);
  } else if (point < 0x800) {
    byte(0xc0 | point >> 6);
    byte(0x80 | (point & 0x3f));
  } else if (point < 0x10000) {
    byte(0xe0 | point >> 12);
    byte(0x80 | (point >> 6 & 0x3f));
    byte(0x80 | (point & 0x3f));
  } else {
    byte(0xf0 | point >> 18);
    byte(0x80 | (point >> 12 & 0x3f));
    byte(0x80 | (point >> 6 & 0x3f));
    byte(0x80 | (point & 0x3f));
  }
}

bool Scanner::hex(uint32_t& unit) {
  if (rest_.size() < 4) {
    return false;
  }
  unit = 0;
  for (int i = 0; i < 4; i++) {
    const char digit = rest_[static_cast<size_t>(i)];
    const uint32_t value = digit >= '0' && digit <= '9'   ? static_cast<uint32_t>(digit - '0')
                           : digit >= 'a' && digit <= 'f' ? static_cast<uint32_t>(digit - 'a' + 10)
                           : digit >= 'A' && digit <= 'F' ? static_cast<uint32_t>(digit - 'A' + 10)
                                                          : 16;
    if (value == 16) {
      return false;
    }
    unit = unit << 4 | value;
  }
  rest_.remove_prefix(4);
  return true;
}

bool Scanner::escape(std::string& text) {
  if (rest_.empty()) {
    return false;
  }
  const char kind = rest_[0];
  rest_.remove_prefix(1);
  switch (kind) {
    case '"':
    case '\\':
    case '/':
      text.push_back(kind);
      return true;
    case 'b':
      text.push_back('\b');
      return true;
    case 'f':
      text.push_back('\f');
      return true;
    case 'n':
      text.push_back('\n');
      return true;
    case 'r':
      text.push_back('\r');
      return true;
    case 't':
      text.push_back('\t');
      return true;
    case 'u':
      break;
    default:
      return false;
  }
  uint32_t unit = 0;
  if (!hex(unit)) {
    return false;
  }
  if (unit >= 0xd800 && unit < 0xdc00 && rest_.substr(0, 2) == "\\u") {
    const std::string_view before = rest_;
    rest_.remove_prefix(2);
    uint32_t low = 0;
    if (!hex(low)) {
      return false;
    }
    if (low >= 0xdc00 && low < 0xe000) {
      appendUtf8(text, 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
      return true;
    }
    rest_ = before;
  }
  appendUtf8(text, unit >= 0xd800 && unit < 0xe000 ? 0xfffd : unit);
  return true;
}

bool Scanner::string(std::string& text) {
  if (!take('"')) {
    return false;
  }
  while (!rest_.empty()) {
    const char character = rest_[0];
    rest_.remove_prefix(1);
    if (character == '"') {
      return true;
    }
    if (static_cast<unsigned char>(character) < 0x20) {
      return false;
    }
    if (character != '\\') {
      text.push_back(character);
    } else if (!escape(text)) {
      return false;
    }
  }
  return false;
}

bool Scanner::integer(int64_t& number) {
  space();
  const bool negative = take('-');
  if (rest_.empty() || rest_[0] < '0' || rest_[0] > '9') {
    return false;
  }
  number = 0;
  while (!rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9') {
    if (number > INT32_MAX) {
      return false;
    }
    number = number * 10 + (rest_[0] - '0');
    rest_.remove_prefix(1);
  }
  number = negative ? -number : number;
  return rest_.empty() || (rest_[0] != '.' && rest_[0] != 'e' && rest_[0] != 'E');
}

bool Scanner::number() {
  size_t length = 0;
  while (length < rest_.size() &&
         std::string_view("0123456789+-.eE").find(rest_[length]) != std::string_view::npos) {
    length++;
  }
  rest_.remove_prefix(length);
  return length > 0;
}

bool Scanner::array(unsigned depth) {
  if (!take('[')) {
    return false;
  }
  if (take(']')) {
    return true;
  }
  do {
    if (!any(depth + 1)) {
      return false;
    }
  } while (take(','));
  return take(']');
}

bool Scanner::any(unsigned depth) {
  space();
  if (rest_.empty() || depth > kMostDepth) {
    return false;
  }
  switch (rest_[0]) {
    case '{':
      return object([this, depth](const std::string&) { return any(depth + 1); });
    case '[':
      return array(depth);
    case '"': {
      std::string ignored;
      return string(ignored);
    }
    case 't':
      return word("true");
    case 'f':
      return word("false");
    case 'n':
      return word("null");
    default:
      return number();
  }
}

/// So that a message cannot write on other lines, or to the terminal's escape sequences.
std::string oneLine(std::string text) {
  for (char& character : text) {
    if (static_cast<unsigned char>(character) < 0x20 || character == 0x7f) {
      character = ' ';
    }
  }
  while (!text.empty() && text.back() == ' ') {
    text.pop_back();
  }
  return text;
}

}  // namespace

Message parseMessage(std::string_view line) {
  Scanner scanner(line);
  bool result = false;
  bool error = false;
  bool hasStatus = false;
  std::string method;
  std::string text;
  int64_t status = 0;
  const auto onError = [&](const std::string& name) {
    return name == "message" ? (text.clear(), scanner.string(text)) : scanner.any();
  };
  const auto onParams = [&](const std::string& name) {
    const Scanner before = scanner;
    if (name == "status" && scanner.integer(status)) {
      hasStatus = true;
      return true;
    }
    scanner = before;
    return scanner.any();
  };
  const bool whole = scanner.object([&](const std::string& name) {
    if (name == "method") {
      return scanner.string(method);
    }
    if (name == "error") {
      error = true;
      return scanner.object(onError);
    }
    if (name == "params") {
      return scanner.object(onParams);
    }
    result |= name == "result";
    return scanner.any();
  });
  Message message;
  if (!whole || !scanner.atEnd()) {
    message.kind = Message::Kind::kBroken;
  } else if (error) {
    message.kind = Message::Kind::kRefused;
    message.text = oneLine(std::move(text));
  } else if (result) {
    message.kind = Message::Kind::kRunning;
  } else if (method == "exit") {
    const bool right = hasStatus && status >= 0 && status <= 255;
    message.kind = right ? Message::Kind::kExit : Message::Kind::kBroken;
    message.status = static_cast<int>(status);
  }
  return message;
}

}  // namespace tsvmm::exec
