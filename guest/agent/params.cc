#include "params.h"

#include <charconv>
#include <string_view>
#include <utility>

#include "error.h"

namespace tsvmm::agent {

namespace {

/// The longest container id: a file name (NAME_MAX).
constexpr std::size_t kMaxId = 255;
/// The longest control group path that we build file names from.
constexpr std::size_t kMaxCgroup = 2048;
/// The most signals that Linux has (_NSIG on x86-64).
constexpr std::uint64_t kMaxSignal = 64;
/// A share's tag has 36 bytes in the device's configuration space (virtio 1.2, 5.11.4).
constexpr std::size_t kMaxTag = 36;
/// The most descriptors of a process beside the standard streams.
constexpr std::size_t kMaxPreserved = 64;
/// 0xffffffff is VMADDR_PORT_ANY.
constexpr std::uint64_t kMaxPort = 0xfffffffe;

[[noreturn]] void refuse(const std::string& field, const std::string& expected) {
  throw ParamsError(field + ": expected " + expected);
}

const Json* find(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it == object.end() ? nullptr : &*it;
}

/// A string without NUL, which would end it early in every system call.
std::string text(const Json& object, const char* name, const std::string& field) {
  const Json* value = find(object, name);
  if (value == nullptr || !value->is_string()) {
    refuse(field, "a string");
  }
  const auto& string = value->get_ref<const std::string&>();
  if (string.empty() || string.find('\0') != std::string::npos) {
    refuse(field, "a string that is not empty and has no NUL");
  }
  return string;
}

std::uint64_t number(const Json& value, const std::string& field, std::uint64_t least, std::uint64_t most) {
  // A literal without sign is stored as unsigned, so a signed one is negative.
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() < least ||
      value.get<std::uint64_t>() > most) {
    refuse(field, "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return value.get<std::uint64_t>();
}

bool flag(const Json& object, const char* name, const std::string& field) {
  const Json* value = find(object, name);
  if (value == nullptr) {
    return false;
  }
  if (!value->is_boolean()) {
    refuse(field, "true or false");
  }
  return value->get<bool>();
}

bool isIdCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '+' ||
         c == '-' || c == '.';
}

/// A container's id, or the name of one of its exec processes.
std::string identifier(const Json& params, const char* name) {
  std::string id = text(params, name, name);
  bool good = id.size() <= kMaxId && id != "." && id != "..";
  for (const char c : id) {
    good = good && isIdCharacter(c);
  }
  if (!good) {
    refuse(name, "at most 255 letters, digits, '_', '+', '-' and '.', not \".\" or \"..\"");
  }
  return id;
}

std::string containerId(const Json& params) { return identifier(params, "id"); }

std::string execName(const Json& params) {
  return find(params, "exec") == nullptr ? "" : identifier(params, "exec");
}

std::string shareTag(const Json& object, const std::string& field) {
  std::string tag = text(object, "tag", field);
  if (tag.size() > kMaxTag) {
    refuse(field, "at most 36 bytes");
  }
  return tag;
}

std::string mountsTag(const Json& params) {
  const Json* mounts = find(params, "mounts");
  if (mounts == nullptr) {
    return "";
  }
  if (!mounts->is_object()) {
    refuse("mounts", "an object");
  }
  return shareTag(*mounts, "mounts.tag");
}

/// What is read of the mounts later.
void checkMounts(const Json& config) {
  const Json* mounts = find(config, "mounts");
  if (mounts == nullptr) {
    return;
  }
  if (!mounts->is_array()) {
    refuse("config.mounts", "an array");
  }
  for (const Json& mount : *mounts) {
    if (!mount.is_object() || (mount.contains("source") && !mount["source"].is_string())) {
      refuse("config.mounts", "objects whose source, where there is one, is a string");
    }
  }
}

RootfsSource rootfsSource(const Json& params) {
  const Json* rootfs = find(params, "rootfs");
  if (rootfs == nullptr || !rootfs->is_object()) {
    refuse("rootfs", "an object");
  }
  RootfsSource source;
  const std::string type = text(*rootfs, "type", "rootfs.type");
  if (type == "virtiofs") {
    source.type = RootfsSource::Type::kVirtiofs;
    source.source = shareTag(*rootfs, "rootfs.tag");
  } else if (type == "disk") {
    source.type = RootfsSource::Type::kDisk;
    source.source = text(*rootfs, "device", "rootfs.device");
    if (source.source.rfind("/dev/", 0) != 0 || source.source.find("..") != std::string::npos) {
      refuse("rootfs.device", "a device file below /dev");
    }
    source.readonly = flag(*rootfs, "readonly", "rootfs.readonly");
  } else {
    refuse("rootfs.type", "\"virtiofs\" or \"disk\"");
  }
  return source;
}

std::optional<std::uint32_t> port(const Json& streams, const char* name) {
  const Json* value = find(streams, name);
  if (value == nullptr) {
    return std::nullopt;
  }
  return static_cast<std::uint32_t>(number(*value, std::string("streams.") + name, 1, kMaxPort));
}

/// `terminalField`: where the process says whether it has a terminal.
StreamPorts streamPorts(const Json& params, bool terminal, const std::string& terminalField) {
  StreamPorts ports;
  const Json none = Json::object();
  const Json* given = find(params, "streams");
  const Json& streams = given == nullptr ? none : *given;
  if (!streams.is_object()) {
    refuse("streams", "an object");
  }
  ports.standardInput = port(streams, "stdin");
  ports.standardOutput = port(streams, "stdout");
  ports.standardError = port(streams, "stderr");
  ports.terminal = port(streams, "terminal");
  if (terminal) {
    if (!ports.terminal || ports.standardInput || ports.standardOutput || ports.standardError) {
      refuse("streams", "only a terminal, as " + terminalField + " is true");
    }
  } else if (ports.terminal) {
    refuse("streams.terminal", "no port, as " + terminalField + " is not true");
  }
  return ports;
}

PreservedPort preservedPort(const Json& value) {
  if (!value.is_object()) {
    refuse("preserved", "an array of objects");
  }
  const Json* port = find(value, "port");
  if (port == nullptr) {
    refuse("preserved.port", "a port");
  }
  const auto number32 = static_cast<std::uint32_t>(number(*port, "preserved.port", 1, kMaxPort));
  const std::string access = text(value, "access", "preserved.access");
  if (access == "read") {
    return {number32, PreservedPort::Access::kRead};
  }
  if (access == "write") {
    return {number32, PreservedPort::Access::kWrite};
  }
  if (access != "both") {
    refuse("preserved.access", "read, write or both");
  }
  return {number32, PreservedPort::Access::kBoth};
}

std::vector<PreservedPort> preservedPorts(const Json& params) {
  std::vector<PreservedPort> ports;
  const Json* preserved = find(params, "preserved");
  if (preserved == nullptr) {
    return ports;
  }
  if (!preserved->is_array() || preserved->size() > kMaxPreserved) {
    refuse("preserved", "an array of at most 64 objects");
  }
  for (const Json& one : *preserved) {
    ports.push_back(preservedPort(one));
  }
  return ports;
}

WindowSize windowSize(const Json& object, const char* rows, const char* columns, const std::string& field) {
  const auto one = [&](const char* name) {
    const Json* value = find(object, name);
    if (value == nullptr) {
      refuse(field + name, "a whole number from 0 to 65535");
    }
    return static_cast<std::uint16_t>(number(*value, field + name, 0, 0xffff));
  };
  return {one(rows), one(columns)};
}

/// Reads `process`, which `field` names in messages, and what of the parameters belongs to it.
ProcessStreams processStreams(const Json& params, const Json& process, const std::string& field) {
  ProcessStreams streams;
  const std::string terminalField = field + ".terminal";
  const bool terminal = flag(process, "terminal", terminalField);
  if (const Json* size = find(process, "consoleSize"); size != nullptr && terminal) {
    if (!size->is_object()) {
      refuse(field + ".consoleSize", "an object");
    }
    streams.windowSize = windowSize(*size, "height", "width", field + ".consoleSize.");
  }
  streams.ports = streamPorts(params, terminal, terminalField);
  streams.preserved = preservedPorts(params);
  return streams;
}

bool hasDotDot(std::string_view path) {
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part == "..") {
      return true;
    }
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
  }
  return false;
}

std::string cgroupPath(const Json& config, const std::string& id) {
  const Json* linux = find(config, "linux");
  if (linux != nullptr && !linux->is_object()) {
    refuse("config.linux", "an object");
  }
  const Json* value = linux == nullptr ? nullptr : find(*linux, "cgroupsPath");
  if (value == nullptr) {
    return "/" + id;
  }
  std::string path = text(*linux, "cgroupsPath", "config.linux.cgroupsPath");
  if (path.front() != '/') {
    path.insert(0, "/");
  }
  if (path.size() > kMaxCgroup || hasDotDot(path) || path.find_first_not_of('/') == std::string::npos) {
    refuse("config.linux.cgroupsPath", "a path of at most 2048 bytes without \"..\"");
  }
  return path;
}

}  // namespace

RunParams parseRunParams(Json params) {
  RunParams run;
  run.id = containerId(params);
  run.rootfs = rootfsSource(params);
  run.mountsTag = mountsTag(params);
  const auto config = params.find("config");
  if (config == params.end() || !config->is_object()) {
    refuse("config", "an object");
  }
  const Json* process = find(*config, "process");
  if (process == nullptr || !process->is_object()) {
    refuse("config.process", "an object");
  }
  run.streams = processStreams(params, *process, "config.process");
  if (const Json* root = find(*config, "root"); root != nullptr && !root->is_object()) {
    refuse("config.root", "an object");
  }
  checkMounts(*config);
  run.cgroup = cgroupPath(*config, run.id);
  run.config = std::move(params["config"]);
  return run;
}

ExecParams parseExecParams(Json params) {
  ExecParams exec;
  exec.id = containerId(params);
  exec.exec = identifier(params, "exec");
  const Json* process = find(params, "process");
  if (process == nullptr || !process->is_object()) {
    refuse("process", "an object");
  }
  // crun reads the first without looking whether it is there.
  const Json* args = find(*process, "args");
  if (args == nullptr || !args->is_array() || args->empty() || !args->front().is_string()) {
    refuse("process.args", "an array that begins with the program");
  }
  exec.streams = processStreams(params, *process, "process");
  if (const Json* cgroup = find(params, "cgroup"); cgroup != nullptr) {
    if (!cgroup->is_string()) {
      refuse("cgroup", "a string");
    }
    exec.cgroup = cgroup->get<std::string>();
    if (exec.cgroup.empty() || exec.cgroup.front() != '/' || exec.cgroup.size() > kMaxCgroup ||
        exec.cgroup.find('\0') != std::string::npos || hasDotDot(exec.cgroup)) {
      refuse("cgroup", "an absolute path without .., of at most 2048 bytes");
    }
  }
  exec.process = std::move(params["process"]);
  return exec;
}

UpdateParams parseUpdateParams(Json params) {
  UpdateParams update;
  update.id = containerId(params);
  const auto resources = params.find("resources");
  if (resources == params.end() || !resources->is_object()) {
    refuse("resources", "an object");
  }
  update.resources = std::move(*resources);
  return update;
}

std::string parseIdParams(const Json& params) { return containerId(params); }

KillParams parseKillParams(const Json& params) {
  KillParams kill;
  kill.id = containerId(params);
  kill.exec = execName(params);
  const Json* signal = find(params, "signal");
  if (signal == nullptr) {
    refuse("signal", "a whole number from 1 to 64");
  }
  kill.signal = static_cast<int>(number(*signal, "signal", 1, kMaxSignal));
  kill.all = flag(params, "all", "all");
  return kill;
}

ResizeParams parseResizeParams(const Json& params) {
  return {containerId(params), execName(params), windowSize(params, "rows", "columns", "")};
}

std::int64_t parseTimeParams(const Json& params) {
  const std::string digits = text(params, "realtimeNs", "realtimeNs");
  std::int64_t value = 0;
  const char* end = digits.data() + digits.size();
  const auto [last, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc() || last != end || value < 0) {
    refuse("realtimeNs", "nanoseconds since 1970 as a decimal string");
  }
  return value;
}

}  // namespace tsvmm::agent
