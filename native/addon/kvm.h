#pragma once

#include <napi.h>

namespace tsvmm::addon {

/// Exports the system calls that src/kvm is made of: open, close, ioctl, eventfd, mmapVcpu, exitNow. What
/// they mean is decided in TypeScript. A failed call is returned as -errno; only an argument of the wrong
/// type throws.
void initKvm(Napi::Env env, Napi::Object exports);

}  // namespace tsvmm::addon
