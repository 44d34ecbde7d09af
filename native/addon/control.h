#pragma once

#include <napi.h>

namespace tsvmm::addon {

/// Exports the control socket's two sides: controlRequest, controlStream, ControlServer.
void initControl(Napi::Env env, Napi::Object exports);

}  // namespace tsvmm::addon
