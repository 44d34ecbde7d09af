#pragma once

#include <napi.h>

#include <memory>

#include "memory/guest_memory.h"

namespace tsvmm::addon {

/// Exports the class NativeMemory: a GuestMemory with its checked accesses. src/memory/guest-memory.ts wraps
/// it.
void initMemory(Napi::Env env, Napi::Object exports);

/// The memory inside a NativeMemory, shared. Throws a Napi::TypeError for any other value and a Napi::Error
/// for one that is closed.
std::shared_ptr<GuestMemory> unwrapMemory(const Napi::Value& value);

}  // namespace tsvmm::addon
