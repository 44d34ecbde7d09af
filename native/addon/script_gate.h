#pragma once

#include <napi.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

namespace tsvmm::addon {

/// The way from a machine's threads to the JavaScript thread, for devices written in TypeScript and for the
/// machine's events. Calls run in order. close() ends every wait, so that a thread which waits for JavaScript
/// can always be joined by it.
class ScriptGate : public std::enable_shared_from_this<ScriptGate> {
 public:
  using Call = std::function<void(Napi::Env)>;

  /// `keepsAlive`: whether the process shall live as long as the gate is open.
  static std::shared_ptr<ScriptGate> create(Napi::Env env, bool keepsAlive);
  ~ScriptGate() = default;

  /// Runs `call` on the JavaScript thread. Waits while more than a few hundred calls are pending; false once
  /// closed.
  bool post(Call call);
  /// The same, and waits until it has run; false if the gate was closed before.
  bool run(const Call& call);
  /// On the JavaScript thread. Drops what is pending, refuses all that comes, and wakes who waits.
  void close();

 private:
  struct Pending {
    Call call;
    bool* done;
  };
  void drain(Napi::Env env);

  napi_threadsafe_function function_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Pending> pending_;
  bool closed_ = false;
  Napi::Env env_{nullptr};
};

}  // namespace tsvmm::addon
