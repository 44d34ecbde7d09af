#include "addon/memory.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace tsvmm::addon {
namespace {

constexpr napi_type_tag kMemoryTag = {0x7473766d6d2e6d65, 0x6d6f72792e763031};
constexpr double kMaxSafeInteger = 9007199254740991.0;
// V8's limit of Node 20; a larger one aborts the process.
constexpr uint64_t kMaxView = 1ULL << 32;

uint64_t integerArgument(const Napi::Value& value, const char* name) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(number >= 0 && number <= kMaxSafeInteger) ||
      number != static_cast<double>(static_cast<uint64_t>(number))) {
    throw Napi::TypeError::New(value.Env(), std::string(name) + " must be an integer from 0 to 2^53 - 1");
  }
  return static_cast<uint64_t>(number);
}

struct Bytes {
  uint8_t* data;
  size_t size;
};

Bytes bytesArgument(const Napi::Value& value) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().ElementSize() != 1) {
    throw Napi::TypeError::New(value.Env(), "bytes must be a Uint8Array");
  }
  const auto view = value.As<Napi::TypedArray>();
  return {static_cast<uint8_t*>(view.ArrayBuffer().Data()) + view.ByteOffset(), view.ByteLength()};
}

/// Accesses outside RAM are answered with false (load: EFAULT); TypeScript makes the error that names them.
class NativeMemory : public Napi::ObjectWrap<NativeMemory> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeMemory",
                       {
                           InstanceMethod<&NativeMemory::regions>("regions"),
                           InstanceMethod<&NativeMemory::read>("read"),
                           InstanceMethod<&NativeMemory::write>("write"),
                           InstanceMethod<&NativeMemory::load>("load"),
                           InstanceMethod<&NativeMemory::fill>("fill"),
                           InstanceMethod<&NativeMemory::copy>("copy"),
                           InstanceMethod<&NativeMemory::unsafeView>("unsafeView"),
                           InstanceMethod<&NativeMemory::close>("close"),
                           InstanceAccessor<&NativeMemory::memfd>("memfd"),
                       });
  }

  // NativeMemory([{ address, size }], { backing: 'anonymous' | 'memfd', hugePages })
  explicit NativeMemory(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeMemory>(info) {
    const Napi::Env env = info.Env();
    if (!info[0].IsArray() || !info[1].IsObject()) {
      throw Napi::TypeError::New(env, "NativeMemory takes an array of regions and an object of options");
    }
    const auto list = info[0].As<Napi::Array>();
    std::vector<GuestMemory::RegionSpec> specs;
    for (uint32_t i = 0; i < list.Length(); ++i) {
      const Napi::Value item = list[i];
      if (!item.IsObject()) {
        throw Napi::TypeError::New(env, "a region must be an object");
      }
      const auto region = item.As<Napi::Object>();
      specs.push_back(
          {integerArgument(region.Get("address"), "address"), integerArgument(region.Get("size"), "size")});
    }
    const auto given = info[1].As<Napi::Object>();
    GuestMemory::Options options;
    const Napi::Value backing = given.Get("backing");
    if (backing.IsString() && backing.As<Napi::String>().Utf8Value() == "memfd") {
      options.backing = GuestMemory::Backing::kMemfd;
    }
    const Napi::Value hugePages = given.Get("hugePages");
    if (hugePages.IsBoolean()) {
      options.hugePages = hugePages.As<Napi::Boolean>();
    }
    try {
      memory_ = std::make_shared<GuestMemory>(specs, options);
    } catch (const std::exception& error) {
      throw Napi::Error::New(env, error.what());
    }
    info.This().As<Napi::Object>().TypeTag(&kMemoryTag);
  }

  const std::shared_ptr<GuestMemory>& memory(Napi::Env env) const {
    if (!memory_) {
      throw Napi::Error::New(env, "the guest memory is closed");
    }
    return memory_;
  }

 private:
  Napi::Value regions(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const auto& list = memory(env)->regions();
    Napi::Array result = Napi::Array::New(env, list.size());
    for (uint32_t i = 0; i < list.size(); ++i) {
      Napi::Object region = Napi::Object::New(env);
      region["address"] = Napi::Number::New(env, static_cast<double>(list[i].address));
      region["size"] = Napi::Number::New(env, static_cast<double>(list[i].size));
      region["host"] = Napi::BigInt::New(env, reinterpret_cast<uint64_t>(list[i].host));
      region["fileOffset"] = Napi::Number::New(env, static_cast<double>(list[i].fileOffset));
      result[i] = region;
    }
    return result;
  }

  Napi::Value read(const Napi::CallbackInfo& info) {
    const Bytes to = bytesArgument(info[1]);
    const auto from = memory(info.Env())->slice(integerArgument(info[0], "address"), to.size);
    if (from && to.size > 0) {
      from->read(0, to.data, to.size);
    }
    return Napi::Boolean::New(info.Env(), from.has_value());
  }

  Napi::Value write(const Napi::CallbackInfo& info) {
    const Bytes from = bytesArgument(info[1]);
    const auto to = memory(info.Env())->slice(integerArgument(info[0], "address"), from.size);
    if (to && from.size > 0) {
      to->write(0, from.data, from.size);
    }
    return Napi::Boolean::New(info.Env(), to.has_value());
  }

  Napi::Value load(const Napi::CallbackInfo& info) {
    const uint64_t fd = integerArgument(info[0], "fd");
    const int error = memory(info.Env())
                          ->load(static_cast<int>(fd), integerArgument(info[1], "fileOffset"),
                                 integerArgument(info[2], "address"), integerArgument(info[3], "length"));
    return Napi::Number::New(info.Env(), error);
  }

  Napi::Value fill(const Napi::CallbackInfo& info) {
    const auto to =
        memory(info.Env())->slice(integerArgument(info[0], "address"), integerArgument(info[1], "length"));
    if (to) {
      to->fill(static_cast<uint8_t>(integerArgument(info[2], "value")));
    }
    return Napi::Boolean::New(info.Env(), to.has_value());
  }

  Napi::Value copy(const Napi::CallbackInfo& info) {
    const auto& all = memory(info.Env());
    const uint64_t length = integerArgument(info[2], "length");
    const auto from = all->slice(integerArgument(info[0], "from"), length);
    const auto to = all->slice(integerArgument(info[1], "to"), length);
    if (from && to) {
      std::memmove(to->unsafeData(), from->unsafeData(), length);
    }
    return Napi::Boolean::New(info.Env(), from && to);
  }

  // An ArrayBuffer over the mapping itself, or undefined outside RAM. It holds the memory, so it stays valid
  // however long it lives; Node does not transfer external buffers to other threads (20 copies them, later
  // ones refuse).
  Napi::Value unsafeView(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const uint64_t length = integerArgument(info[1], "length");
    const auto slice = memory(env)->slice(integerArgument(info[0], "address"), length);
    if (!slice) {
      return env.Undefined();
    }
    if (length > kMaxView) {
      throw Napi::RangeError::New(env, "a view of guest memory has at most 4 GiB");
    }
    if (length == 0) {
      return Napi::ArrayBuffer::New(env, 0);
    }
    return Napi::ArrayBuffer::New(
        env, slice->unsafeData(), length,
        [](Napi::Env, void*, std::shared_ptr<GuestMemory>* owner) { delete owner; },
        new std::shared_ptr<GuestMemory>(memory_));
  }

  void close(const Napi::CallbackInfo&) { memory_.reset(); }

  Napi::Value memfd(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), memory(info.Env())->memfd());
  }

  std::shared_ptr<GuestMemory> memory_;
};

}  // namespace

void initMemory(Napi::Env env, Napi::Object exports) { exports["NativeMemory"] = NativeMemory::define(env); }

std::shared_ptr<GuestMemory> unwrapMemory(const Napi::Value& value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kMemoryTag)) {
    throw Napi::TypeError::New(value.Env(), "expected a NativeMemory");
  }
  return NativeMemory::Unwrap(value.As<Napi::Object>())->memory(value.Env());
}

}  // namespace tsvmm::addon
