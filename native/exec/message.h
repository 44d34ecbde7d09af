#pragma once

#include <string>
#include <string_view>

namespace tsvmm::exec {

/// What a line from the sandbox says, as far as it matters here.
struct Message {
  enum class Kind {
    kOther,    // a notification that is for others
    kRunning,  // the result: the process runs
    kRefused,  // an error, with `text`
    kExit,     // the process has ended, with `status`
    kBroken,   // not a message
  };
  Kind kind = Kind::kOther;
  int status = 0;    // 0 to 255
  std::string text;  // for people, one line
};

/// Takes one line of JSON-RPC apart. What is not JSON, or has not the types that it should have, is kBroken.
Message parseMessage(std::string_view line);

}  // namespace tsvmm::exec
