#pragma once

#include <napi.h>

#include "io/value.h"

namespace tsvmm::addon {

/// Numbers up to 2^53 - 1 become numbers, larger ones bigints; bytes become Buffers, records plain objects.
Napi::Value toJs(Napi::Env env, const Value& value);
/// The way back. Throws a Napi::TypeError for what a Value cannot be (a negative number, a fraction, a
/// function), and for lists and records more than 64 deep.
Value fromJs(const Napi::Value& value);

}  // namespace tsvmm::addon
