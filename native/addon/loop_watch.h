#pragma once

#include <napi.h>

#include <functional>

namespace tsvmm::addon {

/// Calls a function on the JavaScript thread, from Node's own loop, whenever a descriptor is readable. The
/// function runs outside of JavaScript: it enters by callScript().
class LoopWatch {
 public:
  /// `fd` has to stay open until close(). Throws a Napi::Error. `keepsAlive`: the process does not end while
  /// it watches.
  LoopWatch(Napi::Env env, int fd, bool keepsAlive, std::function<void()> readable);
  ~LoopWatch() { close(); }
  LoopWatch(const LoopWatch&) = delete;
  LoopWatch& operator=(const LoopWatch&) = delete;

  /// The function is not called again, and `fd` may be closed. Idempotent; also from the function itself.
  void close();

 private:
  struct State;
  State* state_;
};

/// Calls `function` from the loop as Node calls its own callbacks: promises are served after it, and what it
/// throws is an uncaught exception.
void callScript(const Napi::FunctionReference& function,
                const std::function<std::vector<napi_value>(Napi::Env)>& arguments);

}  // namespace tsvmm::addon
