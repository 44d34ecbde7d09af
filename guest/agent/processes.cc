#include "processes.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "io/fd.h"
#include "keyed.h"
#include "mounts.h"

namespace tsvmm::agent {

namespace {

/// Bytes of arguments: of one process, and of all. Beyond that a process is told by its name.
constexpr std::size_t kMaxArguments = 4096;
constexpr std::size_t kMaxAllArguments = 1u << 20;
/// As the host takes them.
constexpr std::size_t kMaxWords = 1024;
/// USER_HZ, the unit of times in /proc.
constexpr double kTicks = 100;

/// The beginning of a file.
std::string readStart(const std::string& path, std::size_t most) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string content(most, '\0');
  const ssize_t count = fd ? read(fd.get(), content.data(), most) : -1;
  content.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  return content;
}

/// A terminal's device number, as /proc/PID/stat has it, as its name below /dev (Linux's devices.txt).
std::string terminalName(std::uint64_t device) {
  const std::uint64_t major = (device >> 8) & 0xfff;
  const std::uint64_t minor = (device & 0xff) | ((device >> 12) & 0xfff00);
  if (major >= 136 && major <= 143) {
    return "pts/" + std::to_string((major - 136) * 256 + minor);
  }
  if (major == 4 && minor < 64) {
    return "tty" + std::to_string(minor);
  }
  if (major == 4) {
    return "ttyS" + std::to_string(minor - 64);
  }
  return major == 5 && minor == 1 ? "console" : "?";
}

/// Control characters, which would make a message longer than it is counted.
void blank(std::string& text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; },
      '?');
}

Json commandOf(const std::string& folder, std::string name, std::size_t& budget) {
  const std::string line = readStart(folder + "/cmdline", std::min(kMaxArguments, budget));
  budget -= line.size();
  Json words = Json::array();
  for (std::size_t begin = 0; begin < line.size() && words.size() < kMaxWords;) {
    const std::size_t end = std::min(line.find('\0', begin), line.size());
    std::string word = line.substr(begin, end - begin);
    blank(word);
    words.push_back(std::move(word));
    begin = end + 1;
  }
  if (words.empty()) {
    blank(name);
    words.push_back("[" + name + "]");
  }
  return words;
}

/// Null where it has ended.
Json readProcess(pid_t pid, const std::string& proc, std::size_t& budget) {
  const std::string folder = proc + "/" + std::to_string(pid);
  const std::string stat = readStart(folder + "/stat", 1024);
  const std::string status = readStart(folder + "/status", 4096);
  // The name in parentheses may hold anything.
  const std::size_t open = stat.find('(');
  const std::size_t close = stat.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open || status.empty()) {
    return nullptr;
  }
  // Fields 3 to 22: state ppid pgrp session tty_nr ... utime(14) stime ... threads(20) ... starttime.
  std::array<std::string_view, 20> fields;
  std::string_view rest = std::string_view(stat).substr(close + 1);
  for (std::string_view& field : fields) {
    field = nextWord(rest);
  }
  const auto number = [&](std::size_t field) { return decimal(fields[field - 3]); };
  std::uint64_t uid = 0;
  auto nsPid = static_cast<std::uint64_t>(pid);
  std::string_view lines = status;
  std::string_view line;
  while (nextLine(lines, line)) {
    const std::string_view key = nextWord(line);
    if (key == "Uid:") {
      // The real one comes first.
      nextWord(line);
      uid = decimal(nextWord(line));
    } else if (key == "NSpid:") {
      // From the outermost namespace to the innermost.
      for (std::string_view word = nextWord(line); !word.empty(); word = nextWord(line)) {
        nsPid = decimal(word);
      }
    }
  }
  return {{"pid", pid},
          {"nsPid", nsPid},
          {"ppid", number(4)},
          {"uid", uid},
          {"tty", terminalName(number(7))},
          {"state", std::string(fields[0])},
          {"startTime", static_cast<double>(number(22)) / kTicks},
          {"cpuTime", static_cast<double>(number(14) + number(15)) / kTicks},
          {"threads", number(20)},
          {"command", commandOf(folder, stat.substr(open + 1, close - open - 1), budget)}};
}

}  // namespace

Json readProcesses(const std::vector<pid_t>& pids, const std::string& proc) {
  Json processes = Json::array();
  std::size_t budget = kMaxAllArguments;
  for (const pid_t pid : pids) {
    if (processes.size() >= kMaxProcesses) {
      break;
    }
    if (Json process = readProcess(pid, proc, budget); !process.is_null()) {
      processes.push_back(std::move(process));
    }
  }
  return {{"processes", std::move(processes)}};
}

}  // namespace tsvmm::agent
