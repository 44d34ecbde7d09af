#pragma once

#include <napi.h>

namespace tsvmm::addon {

/// Exports what network namespaces take: netlink sockets, TAP devices, setns(2), unshare(2) and flock(2).
void initNetwork(Napi::Env env, Napi::Object exports);

}  // namespace tsvmm::addon
