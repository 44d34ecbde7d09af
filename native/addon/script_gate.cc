#include "addon/script_gate.h"

namespace tsvmm::addon {
namespace {
// A guest that writes faster than JavaScript serves waits instead of growing the queue.
constexpr size_t kMaxPending = 256;
}  // namespace

std::shared_ptr<ScriptGate> ScriptGate::create(Napi::Env env, bool keepsAlive) {
  auto gate = std::make_shared<ScriptGate>();
  gate->env_ = env;
  auto* held = new std::shared_ptr<ScriptGate>(gate);
  const napi_status status = napi_create_threadsafe_function(
      env, nullptr, nullptr, Napi::String::New(env, "tsvmm"), 0, 1, held,
      [](napi_env, void* data, void*) { delete static_cast<std::shared_ptr<ScriptGate>*>(data); }, gate.get(),
      [](napi_env callEnv, napi_value, void* context, void*) {
        if (callEnv != nullptr) {
          static_cast<ScriptGate*>(context)->drain(callEnv);
        }
      },
      &gate->function_);
  if (status != napi_ok) {
    delete held;
    throw Napi::Error::New(env, "cannot make a thread-safe function");
  }
  if (!keepsAlive) {
    napi_unref_threadsafe_function(env, gate->function_);
  }
  return gate;
}

bool ScriptGate::post(Call call) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return closed_ || pending_.size() < kMaxPending; });
  if (closed_) {
    return false;
  }
  pending_.push_back({std::move(call), nullptr});
  if (pending_.size() == 1) {
    napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
  }
  return true;
}

bool ScriptGate::run(const Call& call) {
  bool done = false;
  std::unique_lock lock(mutex_);
  if (closed_) {
    return false;
  }
  pending_.push_back({call, &done});
  if (pending_.size() == 1) {
    napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
  }
  changed_.wait(lock, [&] { return closed_ || done; });
  return done;
}

void ScriptGate::drain(Napi::Env env) {
  // Bounded: what the calls themselves provoke waits for the next turn of the event loop.
  for (size_t budget = kMaxPending; budget > 0; budget--) {
    Pending next;
    {
      std::lock_guard lock(mutex_);
      if (pending_.empty()) {
        return;
      }
      next = pending_.front();
    }
    Napi::HandleScope scope(env);
    next.call(env);
    std::lock_guard lock(mutex_);
    if (closed_) {
      return;
    }
    pending_.pop_front();
    if (next.done != nullptr) {
      *next.done = true;
    }
    changed_.notify_all();
  }
  std::lock_guard lock(mutex_);
  if (!pending_.empty() && !closed_) {
    napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
  }
}

void ScriptGate::close() {
  std::unique_lock lock(mutex_);
  if (closed_) {
    return;
  }
  closed_ = true;
  pending_.clear();
  changed_.notify_all();
  lock.unlock();
  napi_release_threadsafe_function(function_, napi_tsfn_abort);
}

}  // namespace tsvmm::addon
