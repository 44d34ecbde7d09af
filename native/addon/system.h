#pragma once

#include <napi.h>

namespace tsvmm::addon {

/// Exports system calls that Node lacks and a command needs: pipe(2), locks of a file's ranges.
void initSystem(Napi::Env env, Napi::Object exports);

}  // namespace tsvmm::addon
