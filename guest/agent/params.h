#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "json.h"

namespace tsvmm::agent {

/// Where a container's root file system comes from.
struct RootfsSource {
  enum class Type { kVirtiofs, kDisk };
  Type type = Type::kVirtiofs;
  /// The share's tag, or the disk's device file.
  std::string source;
  /// Disks only: mounted read-only.
  bool readonly = false;
};

/// Host ports of the standard streams. One that is absent is /dev/null.
struct StreamPorts {
  std::optional<std::uint32_t> standardInput;
  std::optional<std::uint32_t> standardOutput;
  std::optional<std::uint32_t> standardError;
  /// Both directions of the pseudo terminal; present exactly where the process has one.
  std::optional<std::uint32_t> terminal;
};

/// Characters; 0 is "unknown", as in TIOCSWINSZ.
struct WindowSize {
  std::uint16_t rows = 0;
  std::uint16_t columns = 0;
};

struct RunParams {
  std::string id;
  Json config;
  RootfsSource rootfs;
  /// The tag of the share that has the sources of bind mounts; empty where there is none.
  std::string mountsTag;
  StreamPorts streams;
  bool terminal = false;
  std::optional<WindowSize> windowSize;
  /// Absolute, below the control groups' root, without "..".
  std::string cgroup;
};

struct KillParams {
  std::string id;
  int signal = 0;
  bool all = false;
};

struct ResizeParams {
  std::string id;
  WindowSize size;
};

/// Each reads the parameters of the method of its name and throws ParamsError, with the field's name and what
/// was expected.
RunParams parseRunParams(Json params);
KillParams parseKillParams(const Json& params);
ResizeParams parseResizeParams(const Json& params);
/// Nanoseconds since 1970.
std::int64_t parseTimeParams(const Json& params);

}  // namespace tsvmm::agent
