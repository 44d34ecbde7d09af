#include "stats.h"

#include <dirent.h>

#include <string_view>

#include "keyed.h"
#include "mounts.h"

namespace tsvmm::agent {

namespace {

/// Devices and sizes of huge pages that are told of: more than a machine has.
constexpr std::size_t kMaxEntries = 256;

/// Sets a member to the number in a file, unless the file is missing or says "max": no limit.
void setNumber(Json& object, const char* name, const std::string& path) {
  const std::string content = readFile(path);
  if (!content.empty() && content.front() >= '0' && content.front() <= '9') {
    object[name] = decimal(content);
  }
}

Json cpuStats(const std::string& folder) {
  const std::string stat = readFile(folder + "/cpu.stat");
  const auto nanoseconds = [&](const char* key) { return keyedNumber(stat, key) * 1000; };
  return {{"usageNs", nanoseconds("usage_usec")},
          {"userNs", nanoseconds("user_usec")},
          {"systemNs", nanoseconds("system_usec")},
          {"periods", keyedNumber(stat, "nr_periods")},
          {"throttledPeriods", keyedNumber(stat, "nr_throttled")},
          {"throttledNs", nanoseconds("throttled_usec")}};
}

Json memoryStats(const std::string& folder) {
  const std::string events = readFile(folder + "/memory.events");
  Json memory = {{"usage", 0},
                 {"failcnt", keyedNumber(events, "max")},
                 {"oomKills", keyedNumber(events, "oom_kill")},
                 {"stat", Json::object()}};
  setNumber(memory, "usage", folder + "/memory.current");
  setNumber(memory, "limit", folder + "/memory.max");
  setNumber(memory, "max", folder + "/memory.peak");
  setNumber(memory, "swapUsage", folder + "/memory.swap.current");
  setNumber(memory, "swapLimit", folder + "/memory.swap.max");
  const std::string stat = readFile(folder + "/memory.stat");
  std::string_view rest = stat;
  std::string_view line;
  while (nextLine(rest, line)) {
    const std::string name(nextWord(line));
    memory["stat"][name] = decimal(nextWord(line));
  }
  return memory;
}

Json pidsStats(const std::string& folder) {
  Json pids = {{"current", 0}};
  setNumber(pids, "current", folder + "/pids.current");
  setNumber(pids, "limit", folder + "/pids.max");
  return pids;
}

/// Lines of "MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ..."; a device without any traffic has no words.
Json ioStats(const std::string& folder) {
  Json devices = Json::array();
  const std::string stat = readFile(folder + "/io.stat");
  std::string_view rest = stat;
  std::string_view line;
  while (nextLine(rest, line) && devices.size() < kMaxEntries) {
    const std::string_view device = nextWord(line);
    const std::size_t colon = device.find(':');
    if (colon == std::string_view::npos) {
      continue;
    }
    Json entry = {{"major", decimal(device.substr(0, colon))},
                  {"minor", decimal(device.substr(colon + 1))},
                  {"readBytes", 0},
                  {"writeBytes", 0},
                  {"readOps", 0},
                  {"writeOps", 0}};
    for (std::string_view word = nextWord(line); !word.empty(); word = nextWord(line)) {
      const std::size_t equals = word.find('=');
      if (equals == std::string_view::npos) {
        continue;
      }
      const std::string_view key = word.substr(0, equals);
      const char* name = key == "rbytes"   ? "readBytes"
                         : key == "wbytes" ? "writeBytes"
                         : key == "rios"   ? "readOps"
                         : key == "wios"   ? "writeOps"
                                           : nullptr;
      if (name != nullptr) {
        entry[name] = decimal(word.substr(equals + 1));
      }
    }
    devices.push_back(std::move(entry));
  }
  return devices;
}

/// One of each size that the kernel has: files `hugetlb.SIZE.current`.
Json hugePageStats(const std::string& folder) {
  constexpr std::string_view kBefore = "hugetlb.";
  constexpr std::string_view kAfter = ".current";
  Json sizes = Json::array();
  DIR* files = opendir(folder.c_str());
  while (const dirent* entry = files == nullptr ? nullptr : readdir(files)) {
    const std::string_view name = entry->d_name;
    if (name.size() <= kBefore.size() + kAfter.size() || name.substr(0, kBefore.size()) != kBefore ||
        name.substr(name.size() - kAfter.size()) != kAfter || sizes.size() >= kMaxEntries) {
      continue;
    }
    const std::string size(name.substr(kBefore.size(), name.size() - kBefore.size() - kAfter.size()));
    // `hugetlb.SIZE.rsvd.current` counts what is only reserved.
    if (size.find('.') != std::string::npos) {
      continue;
    }
    const std::string path = folder + "/hugetlb." + size;
    Json one = {{"size", size}, {"usage", 0}, {"failcnt", keyedNumber(readFile(path + ".events"), "max")}};
    setNumber(one, "usage", path + ".current");
    setNumber(one, "max", path + ".max");
    sizes.push_back(std::move(one));
  }
  if (files != nullptr) {
    closedir(files);
  }
  return sizes;
}

}  // namespace

Json readStats(const std::string& folder) {
  Json stats = {{"cpu", cpuStats(folder)},
                {"memory", memoryStats(folder)},
                {"pids", pidsStats(folder)},
                {"io", ioStats(folder)}};
  Json hugePages = hugePageStats(folder);
  if (!hugePages.empty()) {
    stats["hugetlb"] = std::move(hugePages);
  }
  return stats;
}

}  // namespace tsvmm::agent
