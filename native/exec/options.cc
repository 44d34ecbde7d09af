#include "exec/options.h"

#include <string_view>

#include "system/unix_socket.h"

namespace tsvmm::exec {
namespace {

// Standard streams go along with the preserved descriptors.
constexpr unsigned kMostPreserved = system::kMostDescriptors - 3;

bool wholeNumber(std::string_view text, unsigned most, unsigned& number) {
  number = 0;
  for (const char digit : text) {
    if (digit < '0' || digit > '9') {
      return false;
    }
    number = number * 10 + static_cast<unsigned>(digit - '0');
    if (number > most) {
      return false;
    }
  }
  return !text.empty();
}

bool size(std::string_view text, Options& options) {
  const size_t cross = text.find('x');
  return cross != std::string_view::npos && wholeNumber(text.substr(0, cross), 65535, options.rows) &&
         wholeNumber(text.substr(cross + 1), 65535, options.columns);
}

}  // namespace

bool parseOptions(int argc, char** argv, Options& options, std::string& error) {
  for (int i = 1; i < argc; i++) {
    const std::string_view name = argv[i];
    if (name == "--terminal") {
      options.terminal = true;
      continue;
    }
    if (name == "--report") {
      options.report = true;
      continue;
    }
    if (name.substr(0, 2) != "--") {
      if (!options.socket.empty()) {
        error = "one socket is expected";
        return false;
      }
      options.socket = name;
      continue;
    }
    const char* const value = i + 1 < argc ? argv[++i] : "";
    unsigned number = 0;
    bool right = *value != '\0';
    if (name == "--pid-file") {
      options.pidFile = value;
    } else if (name == "--console-socket") {
      options.consoleSocket = value;
    } else if (name == "--preserve") {
      right = wholeNumber(value, kMostPreserved, number);
      options.preserved = static_cast<int>(number);
    } else if (name == "--size") {
      right = size(value, options);
    } else {
      right = false;
    }
    if (!right) {
      error = std::string(name) + " " + value + ": unknown option or wrong value";
      return false;
    }
  }
  if (options.socket.empty()) {
    error =
        "usage: tsvmm-exec SOCKET [--pid-file FILE] [--console-socket SOCKET [--size ROWSxCOLUMNS]] "
        "[--terminal] "
        "[--report] [--preserve N]";
    return false;
  }
  return true;
}

}  // namespace tsvmm::exec
