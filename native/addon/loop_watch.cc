#include "addon/loop_watch.h"

#include <cstddef>
#include <cstdlib>
#include <utility>

// libuv's, which Node exports and whose interface has been stable since 1.0; node-api-headers do not have it.
extern "C" {
using TsvmmUvHandle = struct uv_handle_s;
int uv_poll_init(uv_loop_s* loop, TsvmmUvHandle* handle, int fd);
int uv_poll_start(TsvmmUvHandle* handle, int events,
                  void (*callback)(TsvmmUvHandle*, int status, int events));
int uv_poll_stop(TsvmmUvHandle* handle);
void uv_close(TsvmmUvHandle* handle, void (*callback)(TsvmmUvHandle*));
void uv_unref(TsvmmUvHandle* handle);
size_t uv_handle_size(int type);
void* uv_handle_get_data(const TsvmmUvHandle* handle);
void uv_handle_set_data(TsvmmUvHandle* handle, void* data);
}

namespace tsvmm::addon {
namespace {

constexpr int kUvPoll = 8;      // uv_handle_type: UV_POLL
constexpr int kUvReadable = 1;  // uv_poll_event: UV_READABLE

}  // namespace

/// Freed by the loop, when it has let go of the handle.
struct LoopWatch::State {
  TsvmmUvHandle* handle = nullptr;
  std::function<void()> readable;
  LoopWatch* owner = nullptr;
  napi_async_cleanup_hook_handle cleanup = nullptr;

  static void onReadable(TsvmmUvHandle* handle, int /*status*/, int /*events*/) {
    auto* const state = static_cast<State*>(uv_handle_get_data(handle));
    // It may close the watch, and what the function holds with it.
    const std::function<void()> readable = state->readable;
    readable();
  }
  static void onClosed(TsvmmUvHandle* handle) {
    auto* const state = static_cast<State*>(uv_handle_get_data(handle));
    if (state->cleanup != nullptr) {
      napi_remove_async_cleanup_hook(state->cleanup);
    }
    std::free(handle);
    delete state;
  }
  // The environment ends with the watch open: a worker's loop has to be without handles.
  static void onEnvironmentEnd(napi_async_cleanup_hook_handle, void* data) {
    if (LoopWatch* const owner = static_cast<State*>(data)->owner) {
      owner->close();
    }
  }
};

LoopWatch::LoopWatch(Napi::Env env, int fd, bool keepsAlive, std::function<void()> readable)
    : state_(nullptr) {
  uv_loop_s* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) {
    throw Napi::Error::New(env, "there is no event loop");
  }
  auto* const handle = static_cast<TsvmmUvHandle*>(std::calloc(1, uv_handle_size(kUvPoll)));
  if (handle == nullptr || uv_poll_init(loop, handle, fd) != 0) {
    std::free(handle);
    throw Napi::Error::New(env, "the descriptor cannot be watched");
  }
  state_ = new State{.handle = handle, .readable = std::move(readable), .owner = this};
  uv_handle_set_data(handle, state_);
  if (!keepsAlive) {
    uv_unref(handle);
  }
  uv_poll_start(handle, kUvReadable, State::onReadable);
  napi_add_async_cleanup_hook(env, State::onEnvironmentEnd, state_, &state_->cleanup);
}

void LoopWatch::close() {
  if (State* const state = std::exchange(state_, nullptr)) {
    state->readable = {};
    state->owner = nullptr;
    uv_poll_stop(state->handle);
    uv_close(state->handle, State::onClosed);
  }
}

void callScript(const Napi::FunctionReference& function,
                const std::function<std::vector<napi_value>(Napi::Env)>& arguments) {
  const Napi::Env env = function.Env();
  const Napi::HandleScope scope(env);
  try {
    function.Value().MakeCallback(env.Global(), arguments(env));
  } catch (const Napi::Error& error) {
    napi_fatal_exception(env, error.Value());
  }
}

}  // namespace tsvmm::addon
