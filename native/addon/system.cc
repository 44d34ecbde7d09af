#include "addon/system.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace tsvmm::addon {
namespace {

// pipe(): [read, write], or -errno.
Napi::Value makePipe(const Napi::CallbackInfo& info) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return Napi::Number::New(info.Env(), -errno);
  }
  Napi::Array result = Napi::Array::New(info.Env(), 2);
  result.Set(uint32_t{0}, ends[0]);
  result.Set(uint32_t{1}, ends[1]);
  return result;
}

// lockRange(fd, start, length): takes a write lock for the open file description, without waiting.
Napi::Value lockRange(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsNumber() || !info[1].IsBigInt() || !info[2].IsBigInt()) {
    throw Napi::TypeError::New(env, "lockRange(fd: number, start: bigint, length: bigint)");
  }
  bool losslessStart = false;
  bool losslessLength = false;
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = info[1].As<Napi::BigInt>().Int64Value(&losslessStart);
  lock.l_len = info[2].As<Napi::BigInt>().Int64Value(&losslessLength);
  if (!losslessStart || !losslessLength || lock.l_start < 0 || lock.l_len <= 0) {
    throw Napi::RangeError::New(env, "start must be at least 0 and length at least 1, both below 2^63");
  }
  const int fd = info[0].As<Napi::Number>().Int32Value();
  return Napi::Number::New(env, fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : -errno);
}

}  // namespace

void initSystem(Napi::Env env, Napi::Object exports) {
  exports["pipe"] = Napi::Function::New(env, makePipe, "pipe");
  exports["lockRange"] = Napi::Function::New(env, lockRange, "lockRange");
}

}  // namespace tsvmm::addon
