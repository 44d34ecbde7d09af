#pragma once

#include <napi.h>

namespace tsvmm::addon {

/// Exports OpenGate, which holds who opens a folder.
void initOpenGate(Napi::Env env, Napi::Object exports);

}  // namespace tsvmm::addon
