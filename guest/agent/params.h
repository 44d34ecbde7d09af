#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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

/// A descriptor beside the standard streams, and the host's port behind it.
struct PreservedPort {
  enum class Access { kRead, kWrite, kBoth };
  std::uint32_t port = 0;
  /// What the process can do with it.
  Access access = Access::kBoth;
  bool operator==(const PreservedPort&) const = default;
};

/// What connects a process with the host.
struct ProcessStreams {
  StreamPorts ports;
  /// The terminal's first size.
  std::optional<WindowSize> windowSize;
  /// What the process gets as its descriptors 3, 4, ...
  std::vector<PreservedPort> preserved;
};

struct RunParams {
  std::string id;
  Json config;
  RootfsSource rootfs;
  /// The tag of the share that has the sources of bind mounts; empty where there is none.
  std::string mountsTag;
  ProcessStreams streams;
  /// Absolute, below the control groups' root, without "..".
  std::string cgroup;
};

struct ExecParams {
  std::string id;
  std::string exec;
  /// An OCI process.
  Json process;
  ProcessStreams streams;
  /// Below the container's control group; empty: that itself.
  std::string cgroup;
};

struct KillParams {
  std::string id;
  /// Empty: the container's own process.
  std::string exec;
  int signal = 0;
  bool all = false;
};

struct ResizeParams {
  std::string id;
  std::string exec;
  WindowSize size;
};

struct UpdateParams {
  std::string id;
  /// As config.json's linux.resources.
  Json resources;
};

/// Each reads the parameters of the method of its name and throws ParamsError, with the field's name and what
/// was expected. container.create has those of container.run.
RunParams parseRunParams(Json params);
ExecParams parseExecParams(Json params);
KillParams parseKillParams(const Json& params);
ResizeParams parseResizeParams(const Json& params);
UpdateParams parseUpdateParams(Json params);
/// Where `id` is all.
std::string parseIdParams(const Json& params);
/// Nanoseconds since 1970.
std::int64_t parseTimeParams(const Json& params);

}  // namespace tsvmm::agent
