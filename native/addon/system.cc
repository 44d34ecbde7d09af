#include "addon/system.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "addon/arguments.h"
#include "system/netlink.h"
#include "system/process.h"
#include "system/terminal.h"
#include "system/view.h"

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

Napi::Value number(const Napi::CallbackInfo& info, int value) { return Napi::Number::New(info.Env(), value); }

system::Program programArguments(const Napi::CallbackInfo& info, const Napi::Value& fds) {
  return {.path = stringArgument(info[0], "path"),
          .argv = stringsArgument(info[1], "argv"),
          .env = stringsArgument(info[2], "env"),
          .fds = intsArgument(fds, "fds")};
}

Napi::Value spawn(const Napi::CallbackInfo& info) {
  if (!info[3].IsObject()) {
    throw Napi::TypeError::New(info.Env(), "options must be an object");
  }
  const auto given = info[3].As<Napi::Object>();
  system::SpawnOptions options;
  options.setsid = given.Get("setsid").ToBoolean();
  options.ownPids = given.Get("ownPids").ToBoolean();
  if (const Napi::Value cwd = given.Get("cwd"); !cwd.IsUndefined()) {
    options.cwd = stringArgument(cwd, "cwd");
  }
  return number(info, system::spawn(programArguments(info, given.Get("fds")), options));
}

Napi::Value waitPid(const Napi::CallbackInfo& info) {
  const int pid = static_cast<int>(integerArgument(info[0], "pid", 1, INT32_MAX));
  return number(info, system::waitPid(pid, info[1].ToBoolean()));
}

Napi::Value becomeProgram(const Napi::CallbackInfo& info) {
  return number(info, system::become(programArguments(info, info[3])));
}

Napi::Value closeOnExec(const Napi::CallbackInfo& info) {
  return number(info, system::closeOnExec(static_cast<int>(integerArgument(info[0], "first", 0, INT32_MAX))));
}

Napi::Value descriptorAccess(const Napi::CallbackInfo& info) {
  const int flags = fcntl(intArgument(info, 0, "fd"), F_GETFL);
  return number(info, flags < 0 ? -errno : flags & O_ACCMODE);
}

Napi::Value sendSignal(const Napi::CallbackInfo& info) {
  const int result = ::kill(intArgument(info, 0, "pid"), intArgument(info, 1, "signal"));
  return number(info, result == 0 ? 0 : -errno);
}

Napi::Value openPty(const Napi::CallbackInfo& info) {
  const auto rows = static_cast<uint16_t>(integerArgument(info[0], "rows", 0, UINT16_MAX));
  const auto columns = static_cast<uint16_t>(integerArgument(info[1], "columns", 0, UINT16_MAX));
  system::Pty pty;
  if (const int error = system::openPty(rows, columns, pty); error < 0) {
    return number(info, error);
  }
  Napi::Object result = Napi::Object::New(info.Env());
  result["master"] = Napi::Number::New(info.Env(), pty.master.release());
  result["slave"] = Napi::Number::New(info.Env(), pty.slave.release());
  return result;
}

Napi::Value sendFd(const Napi::CallbackInfo& info) {
  return number(info, system::sendDescriptor(stringArgument(info[0], "socketPath"),
                                             intArgument(info, 1, "fd"), stringArgument(info[2], "name")));
}

Napi::Value controllingTerminal(const Napi::CallbackInfo& info) {
  return number(info, system::takeControllingTerminal(intArgument(info, 0, "fd")));
}

Napi::Value leaveNamespaces(const Napi::CallbackInfo& info) {
  const auto flags = integerArgument(info[0], "flags", 0, UINT32_MAX);
  return number(info, system::leaveNamespaces(static_cast<int>(flags)));
}

Napi::Value joinNamespace(const Napi::CallbackInfo& info) {
  const auto type = static_cast<int>(integerArgument(info[1], "type", 0, UINT32_MAX));
  return number(info, info[0].IsString() ? system::joinNamespace(stringArgument(info[0], "path"), type)
                                         : system::joinNamespace(intArgument(info, 0, "fd"), type));
}

Napi::Value netlink(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int protocol = intArgument(info, 0, "protocol");
  if (!info[1].IsTypedArray()) {
    throw Napi::TypeError::New(env, "request must be a Uint8Array");
  }
  const auto bytes = info[1].As<Napi::Uint8Array>();
  std::vector<std::vector<uint8_t>> answers;
  const int error = system::netlinkRequest(
      protocol, std::vector<uint8_t>(bytes.Data(), bytes.Data() + bytes.ByteLength()), answers);
  if (error < 0) {
    return number(info, error);
  }
  Napi::Array result = Napi::Array::New(env, answers.size());
  for (uint32_t i = 0; i < answers.size(); i++) {
    result.Set(i, Napi::Buffer<uint8_t>::Copy(env, answers[i].data(), answers[i].size()));
  }
  return result;
}

Napi::Value memoryFile(const Napi::CallbackInfo& info) {
  const std::string name = stringArgument(info[0], "name");
  if (info[1].IsTypedArray()) {
    const auto bytes = info[1].As<Napi::Uint8Array>();
    return number(info, system::memoryFile(name, bytes.Data(), bytes.ByteLength()));
  }
  const std::string text = stringArgument(info[1], "bytes");
  return number(info, system::memoryFile(name, text.data(), text.size()));
}

// enterView(view): 0, 1 where it has /proc, or {error, step}.
Napi::Value enterView(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsObject() || !info[0].As<Napi::Object>().Get("mounts").IsArray()) {
    throw Napi::TypeError::New(env, "enterView({rootfs, readOnly?, mounts, stateDirectory})");
  }
  const auto given = info[0].As<Napi::Object>();
  system::View view;
  if (const Napi::Value rootfs = given.Get("rootfs"); !rootfs.IsNull()) {
    view.rootfs = stringArgument(rootfs, "rootfs");
  }
  view.readOnly = given.Get("readOnly").ToBoolean();
  view.emptyProc = given.Get("emptyProc").ToBoolean();
  view.directory = stringArgument(given.Get("stateDirectory"), "stateDirectory");
  const auto mounts = given.Get("mounts").As<Napi::Array>();
  for (uint32_t i = 0; i < mounts.Length(); i++) {
    const Napi::Object mount = mounts.Get(i).ToObject();
    view.mounts.push_back({.source = stringArgument(mount.Get("source"), "source"),
                           .destination = stringArgument(mount.Get("destination"), "destination"),
                           .readOnly = mount.Get("readOnly").ToBoolean()});
  }
  bool hasProc = false;
  const auto failed = system::enterView(view, &hasProc);
  if (!failed) {
    return number(info, hasProc ? 1 : 0);
  }
  Napi::Object result = Napi::Object::New(env);
  result["error"] = Napi::Number::New(env, failed->error);
  result["step"] = Napi::String::New(env, failed->step);
  return result;
}

// separateMounts(): a descriptor or -errno.
Napi::Value separateMounts(const Napi::CallbackInfo& info) { return number(info, system::separateMounts()); }

}  // namespace

void initSystem(Napi::Env env, Napi::Object exports) {
  exports["pipe"] = Napi::Function::New(env, makePipe, "pipe");
  exports["lockRange"] = Napi::Function::New(env, lockRange, "lockRange");
  exports["spawn"] = Napi::Function::New(env, spawn, "spawn");
  exports["waitPid"] = Napi::Function::New(env, waitPid, "waitPid");
  exports["execve"] = Napi::Function::New(env, becomeProgram, "execve");
  exports["closeOnExec"] = Napi::Function::New(env, closeOnExec, "closeOnExec");
  exports["descriptorAccess"] = Napi::Function::New(env, descriptorAccess, "descriptorAccess");
  exports["kill"] = Napi::Function::New(env, sendSignal, "kill");
  exports["openPty"] = Napi::Function::New(env, openPty, "openPty");
  exports["sendFd"] = Napi::Function::New(env, sendFd, "sendFd");
  exports["controllingTerminal"] = Napi::Function::New(env, controllingTerminal, "controllingTerminal");
  exports["unshare"] = Napi::Function::New(env, leaveNamespaces, "unshare");
  exports["setns"] = Napi::Function::New(env, joinNamespace, "setns");
  exports["separateMounts"] = Napi::Function::New(env, separateMounts, "separateMounts");
  exports["enterView"] = Napi::Function::New(env, enterView, "enterView");
  exports["netlink"] = Napi::Function::New(env, netlink, "netlink");
  exports["memfd"] = Napi::Function::New(env, memoryFile, "memfd");
}

}  // namespace tsvmm::addon
