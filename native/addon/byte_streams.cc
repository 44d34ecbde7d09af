#include "addon/byte_streams.h"

#include <algorithm>
#include <cerrno>
#include <exception>
#include <mutex>
#include <string>
#include <utility>

#include "addon/script_function.h"

namespace tsvmm::addon {
namespace {

/// What the sink on the I/O thread and the JavaScript thread share.
struct Window {
  std::mutex mutex;
  size_t outstanding = 0;
  bool paused = false;
  EventLoop* loop = nullptr;  // while the sink is waited for
  std::function<void()> ready;
};

/// Gives `bytes` of the window back; whoever waits for room is told.
void giveBack(const std::shared_ptr<Window>& window, size_t bytes) {
  std::lock_guard lock(window->mutex);
  window->outstanding -= bytes;
  if (window->loop == nullptr || window->paused || window->outstanding > OutputStream::kWindow / 2) {
    return;
  }
  window->loop->post([weak = std::weak_ptr(window)] {
    const auto shared = weak.lock();
    if (!shared) {
      return;
    }
    std::function<void()> ready;
    {
      std::lock_guard inner(shared->mutex);
      shared->loop = nullptr;
      ready = std::exchange(shared->ready, {});
    }
    if (ready) {
      ready();
    }
  });
}

struct Chunk {
  std::string bytes;
  std::shared_ptr<Window> window;
};

void deliver(Napi::Env env, Napi::Function function, Chunk* raw) {
  const std::unique_ptr<Chunk> chunk(raw);
  const auto buffer = Napi::Buffer<char>::Copy(env, chunk->bytes.data(), chunk->bytes.size());
  // An exception goes on to process.on('uncaughtException'), and must not stop the stream.
  Napi::Value result;
  std::exception_ptr thrown;
  try {
    result = function.Call({buffer});
  } catch (const Napi::Error&) {
    thrown = std::current_exception();
  }
  if (!thrown && result.IsBoolean() && !result.As<Napi::Boolean>().Value()) {
    std::lock_guard lock(chunk->window->mutex);
    chunk->window->paused = true;
  }
  giveBack(chunk->window, chunk->bytes.size());
  if (thrown) {
    std::rethrow_exception(thrown);
  }
}

class ScriptSink final : public ByteSink {
 public:
  ScriptSink(Napi::Env env, Napi::Function function, std::shared_ptr<Window> window)
      : window_(std::move(window)), function_(env, function, "tsvmm output") {}
  ~ScriptSink() override { cancel(); }

  ssize_t writev(const iovec* parts, int count) override {
    auto chunk = std::make_unique<Chunk>();
    {
      std::lock_guard lock(window_->mutex);
      if (window_->paused) {
        return -EAGAIN;
      }
      size_t room = OutputStream::kWindow - window_->outstanding;
      for (int i = 0; i < count && room != 0; i++) {
        const size_t step = std::min(room, parts[i].iov_len);
        chunk->bytes.append(static_cast<const char*>(parts[i].iov_base), step);
        room -= step;
      }
      if (chunk->bytes.empty()) {
        return -EAGAIN;
      }
      window_->outstanding += chunk->bytes.size();
    }
    chunk->window = window_;
    const auto size = static_cast<ssize_t>(chunk->bytes.size());
    if (!function_.call(chunk.get(), deliver)) {
      return -EPIPE;
    }
    chunk.release();
    return size;
  }
  void awaitWritable(EventLoop& loop, std::function<void()> ready) override {
    {
      std::lock_guard lock(window_->mutex);
      window_->loop = &loop;
      window_->ready = std::move(ready);
    }
    giveBack(window_, 0);
  }
  void cancel() override {
    std::lock_guard lock(window_->mutex);
    window_->loop = nullptr;
    window_->ready = {};
  }

 private:
  const std::shared_ptr<Window> window_;
  ScriptFunction function_;
};

/// Calls a JavaScript function without arguments, from any thread; let go of with the last copy.
std::function<void()> notifier(Napi::Env env, const Napi::Function& function) {
  const auto shared = std::make_shared<ScriptFunction>(env, function, "tsvmm input");
  return [shared] { shared->call(); };
}

template <typename Make>
auto translated(Napi::Env env, Make&& make) {
  try {
    return make();
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
}

}  // namespace

OutputStream readOutput(const Napi::Value& value) {
  if (value.IsUndefined()) {
    return {nullptr, [] {}};
  }
  if (value.IsNumber()) {
    const int fd = value.As<Napi::Number>().Int32Value();
    return {translated(value.Env(), [&] { return std::make_unique<FdSink>(fd); }), [] {}};
  }
  if (value.IsFunction()) {
    auto window = std::make_shared<Window>();
    return {std::make_unique<ScriptSink>(value.Env(), value.As<Napi::Function>(), window), [window] {
              {
                std::lock_guard lock(window->mutex);
                window->paused = false;
              }
              giveBack(window, 0);
            }};
  }
  throw Napi::TypeError::New(value.Env(), "output: expected a descriptor's number or a function");
}

InputStream readInput(const Napi::Value& value) {
  InputStream input;
  if (value.IsUndefined()) {
    return input;
  }
  if (value.IsNumber()) {
    const int fd = value.As<Napi::Number>().Int32Value();
    input.source = translated(value.Env(), [&] { return std::make_unique<FdSource>(fd); });
  } else if (value.IsFunction()) {
    auto source = std::make_unique<PushSource>(64 << 10, notifier(value.Env(), value.As<Napi::Function>()));
    input.pushed = source.get();
    input.source = std::move(source);
  } else {
    throw Napi::TypeError::New(value.Env(), "input: expected a descriptor's number or a function");
  }
  return input;
}

}  // namespace tsvmm::addon
