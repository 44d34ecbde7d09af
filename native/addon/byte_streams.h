#pragma once

#include <napi.h>

#include <functional>
#include <memory>

#include "io/byte_stream.h"

namespace tsvmm::addon {

/// A sink that hands bytes to a JavaScript function `(chunk: Buffer) => unknown`. At most kWindow bytes are
/// on the way to it; what it is given counts until it returns, or, where it returns `false`, until resume().
struct OutputStream {
  static constexpr size_t kWindow = 256 << 10;

  std::unique_ptr<ByteSink> sink;  ///< null: no output is wanted
  std::function<void()> resume;    ///< for the JavaScript thread; harmless where the sink is a descriptor
};

/// `value`: a descriptor (a number), a function, or undefined for none. Throws a Napi::Error.
OutputStream readOutput(const Napi::Value& value);

/// Where input comes from: a descriptor (a number), what JavaScript pushes (a function that is called when
/// there is room again after a push was not taken wholly), or undefined for none.
struct InputStream {
  std::unique_ptr<ByteSource> source;  ///< null: no input ever
  PushSource* pushed = nullptr;        ///< the same, where JavaScript pushes
};
InputStream readInput(const Napi::Value& value);

}  // namespace tsvmm::addon
