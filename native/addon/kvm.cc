#include "addon/kvm.h"

#include <fcntl.h>
#include <linux/ioctl.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "addon/arguments.h"

namespace tsvmm::addon {
namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;

struct Bytes {
  uint8_t* data = nullptr;
  size_t size = 0;
};

// The view's own bytes; small typed arrays are moved off the JavaScript heap by this, so the address stays.
Bytes viewArgument(const Napi::Value& value, const char* name) {
  if (value.IsTypedArray()) {
    const auto view = value.As<Napi::TypedArray>();
    return {static_cast<uint8_t*>(view.ArrayBuffer().Data()) + view.ByteOffset(), view.ByteLength()};
  }
  if (value.IsDataView()) {
    const auto view = value.As<Napi::DataView>();
    return {static_cast<uint8_t*>(view.ArrayBuffer().Data()) + view.ByteOffset(), view.ByteLength()};
  }
  throw Napi::TypeError::New(value.Env(), std::string(name) + " must be a typed array or a DataView");
}

Napi::Value result(Napi::Env env, int value) { return Napi::Number::New(env, value < 0 ? -errno : value); }

Napi::Value openFile(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) {
    throw Napi::TypeError::New(info.Env(), "path must be a string");
  }
  const std::string path = info[0].As<Napi::String>();
  const int flags = intArgument(info, 1, "flags");
  return result(info.Env(), open(path.c_str(), flags | O_CLOEXEC));
}

Napi::Value closeFile(const Napi::CallbackInfo& info) {
  return result(info.Env(), close(intArgument(info, 0, "fd")));
}

// ioctl(fd, request, arg?, pointee?, pointerOffset?): `arg` is a value (number, bigint) or the struct's
// bytes. Where the struct holds a pointer (KVM_GET_DIRTY_LOG), the address of `pointee` is stored at
// `pointerOffset` first, so that no address of JavaScript memory is ever a JavaScript value.
Napi::Value ioctlFile(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int fd = intArgument(info, 0, "fd");
  const auto request = static_cast<uint32_t>(integerArgument(info[1], "request", 0, UINT32_MAX));
  const Napi::Value arg = info[2];
  if (arg.IsUndefined()) {
    return result(env, ioctl(fd, request, 0UL));
  }
  if (arg.IsNumber()) {
    const int64_t value = integerArgument(arg, "arg", -kMaxSafeInteger, kMaxSafeInteger);
    return result(env, ioctl(fd, request, static_cast<unsigned long>(value)));
  }
  if (arg.IsBigInt()) {
    bool lossless = false;
    const uint64_t value = arg.As<Napi::BigInt>().Uint64Value(&lossless);
    if (!lossless) {
      throw Napi::RangeError::New(env, "arg must fit 64 bits, unsigned");
    }
    return result(env, ioctl(fd, request, static_cast<unsigned long>(value)));
  }
  const Bytes bytes = viewArgument(arg, "arg");
  if (bytes.size < _IOC_SIZE(request)) {
    throw Napi::RangeError::New(env, "arg has " + std::to_string(bytes.size) + " bytes, the request takes " +
                                         std::to_string(_IOC_SIZE(request)));
  }
  if (!info[3].IsUndefined()) {
    const Bytes pointee = viewArgument(info[3], "pointee");
    const int offset = intArgument(info, 4, "pointerOffset");
    const auto address = reinterpret_cast<uint64_t>(pointee.data);
    if (offset < 0 || bytes.size < sizeof address ||
        static_cast<size_t>(offset) > bytes.size - sizeof address) {
      throw Napi::RangeError::New(env, "pointerOffset is outside arg");
    }
    std::memcpy(bytes.data + offset, &address, sizeof address);
  }
  return result(env, ioctl(fd, request, bytes.data));
}

Napi::Value createEventfd(const Napi::CallbackInfo& info) {
  const auto initial = static_cast<unsigned>(intArgument(info, 0, "initial"));
  return result(info.Env(), eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK));
}

/// The kvm_run page of a vCPU, unmapped once: by unmap() or when its ArrayBuffer is collected.
struct RunPage {
  void* base;
  size_t size;

  RunPage(void* base, size_t size) : base(base), size(size) {}
  RunPage(const RunPage&) = delete;
  RunPage& operator=(const RunPage&) = delete;
  ~RunPage() { munmap(base, size); }
};

// Returns { buffer, unmap } or -errno. A mapped page keeps its VM alive, so closing a vCPU unmaps it; that
// detaches the ArrayBuffer, and whoever still holds a view sees an empty one.
Napi::Value mmapVcpu(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int fd = intArgument(info, 0, "fd");
  const int size = intArgument(info, 1, "size");
  if (size <= 0) {
    throw Napi::RangeError::New(env, "size must be positive");
  }
  void* base = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    return Napi::Number::New(env, -errno);
  }
  auto page = std::make_shared<RunPage>(base, static_cast<size_t>(size));
  auto buffer = Napi::ArrayBuffer::New(
      env, base, static_cast<size_t>(size),
      [](Napi::Env, void*, std::shared_ptr<RunPage>* owner) { delete owner; },
      new std::shared_ptr<RunPage>(page));
  auto reference = std::make_shared<Napi::Reference<Napi::ArrayBuffer>>(Napi::Weak(buffer));
  Napi::Object object = Napi::Object::New(env);
  object["buffer"] = buffer;
  object["unmap"] = Napi::Function::New(
      env,
      [page = std::move(page), reference = std::move(reference)](const Napi::CallbackInfo&) mutable {
        if (reference) {
          Napi::ArrayBuffer mapped = reference->Value();
          if (!mapped.IsEmpty() && !mapped.IsDetached()) {
            mapped.Detach();
          }
          reference.reset();
        }
        page.reset();
      },
      "unmap");
  return object;
}

/// KVM's device and a new VM, on their way in a thread of their own. Results are -errno where they failed.
struct PreparedKvm {
  std::string path;
  std::thread thread;
  int device = -ENODEV;
  int vm = -ENODEV;
};

// Never destroyed: a command that ends before it took it leaves thread and descriptors to the process's end.
PreparedKvm* prepared = nullptr;

void prepareKvm(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) {
    throw Napi::TypeError::New(info.Env(), "path must be a string");
  }
  if (prepared != nullptr) {
    return;
  }
  prepared = new PreparedKvm{.path = info[0].As<Napi::String>(), .thread = {}};
  prepared->thread = std::thread([kvm = prepared] {
    kvm->device = open(kvm->path.c_str(), O_RDWR | O_CLOEXEC);
    if (kvm->device < 0) {
      kvm->device = -errno;
      return;
    }
    kvm->vm = ioctl(kvm->device, KVM_CREATE_VM, 0);
    if (kvm->vm < 0) {
      kvm->vm = -errno;
    }
  });
}

Napi::Value takePreparedKvm(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) {
    throw Napi::TypeError::New(info.Env(), "path must be a string");
  }
  if (prepared == nullptr || prepared->path != info[0].As<Napi::String>().Utf8Value()) {
    return info.Env().Undefined();
  }
  prepared->thread.join();
  auto taken = Napi::Object::New(info.Env());
  taken["device"] = Napi::Number::New(info.Env(), prepared->device);
  taken["vm"] = Napi::Number::New(info.Env(), prepared->vm);
  delete prepared;
  prepared = nullptr;
  return taken;
}

void exitNow(const Napi::CallbackInfo& info) { _exit(intArgument(info, 0, "status")); }

}  // namespace

void initKvm(Napi::Env env, Napi::Object exports) {
  exports["open"] = Napi::Function::New(env, openFile, "open");
  exports["close"] = Napi::Function::New(env, closeFile, "close");
  exports["ioctl"] = Napi::Function::New(env, ioctlFile, "ioctl");
  exports["eventfd"] = Napi::Function::New(env, createEventfd, "eventfd");
  exports["mmapVcpu"] = Napi::Function::New(env, mmapVcpu, "mmapVcpu");
  exports["prepareKvm"] = Napi::Function::New(env, prepareKvm, "prepareKvm");
  exports["takePreparedKvm"] = Napi::Function::New(env, takePreparedKvm, "takePreparedKvm");
  exports["exitNow"] = Napi::Function::New(env, exitNow, "exitNow");
}

}  // namespace tsvmm::addon
