#include "processes.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "mounts.h"

using namespace tsvmm::agent;

namespace {

/// A /proc of files, removed at the end.
class Proc {
 public:
  Proc() {
    char path[] = "/tmp/agent-proc-XXXXXX";
    REQUIRE(mkdtemp(path) != nullptr);
    path_ = path;
  }
  ~Proc() { removeTree(path_); }
  Proc(const Proc&) = delete;
  Proc& operator=(const Proc&) = delete;

  void add(int pid, const std::string& stat, const std::string& status, const std::string& command) const {
    const std::string folder = path_ + "/" + std::to_string(pid);
    makeFolders(folder);
    REQUIRE(writeFile(folder + "/stat", stat));
    REQUIRE(writeFile(folder + "/status", status));
    REQUIRE(writeFile(folder + "/cmdline", command));
  }
  Json read(const std::vector<pid_t>& pids) const { return readProcesses(pids, path_)["processes"]; }

 private:
  std::string path_;
};

std::string stat(const std::string& name, const std::string& tty = "0") {
  return "71 (" + name + ") S 5 6 7 " + tty + " 8 9 10 11 12 13 150 25 16 17 20 0 3 0 12345 1 2 3\n";
}

const char* const kStatus = "Name:\tsh\nUid:\t7\t1000\t8\t9\nNSpid:\t71\t12\t1\n";

}  // namespace

TEST_CASE("container.processes: what /proc says of one") {
  const Proc proc;
  proc.add(71, stat("sh", "34817"), kStatus, std::string("sh\0-c\0echo  a\0", 14));
  const Json expected = Json::parse(R"([{
    "pid": 71, "nsPid": 1, "ppid": 5, "uid": 1000, "tty": "pts/1", "state": "S", "startTime": 123.45, "cpuTime": 1.75,
    "threads": 3, "command": ["sh", "-c", "echo  a"]}])");
  CHECK(proc.read({71, 72}) == expected);
}

TEST_CASE("container.processes: names that try to be something else") {
  const Proc proc;
  proc.add(71, stat("a) R 1 2 (b"), kStatus, "");
  proc.add(72, stat("x\n\x01y"), kStatus, "");
  proc.add(73, stat("sh"), kStatus, std::string("a\nb\0\0c", 6));
  const Json all = proc.read({71, 72, 73});
  CHECK(all[0]["ppid"] == 5);
  CHECK(all[0]["command"] == Json::parse(R"(["[a) R 1 2 (b]"])"));
  CHECK(all[1]["command"] == Json::parse(R"(["[x??y]"])"));
  CHECK(all[2]["command"] == Json::parse(R"(["a?b", "", "c"])"));
  CHECK(all[2]["tty"] == "?");
}

TEST_CASE("container.processes: arguments are bounded, of one and of all") {
  const Proc proc;
  std::vector<pid_t> pids;
  for (int pid = 100; pid < 400; ++pid) {
    proc.add(pid, stat("sh"), kStatus, std::string(10000, 'a'));
    pids.push_back(pid);
  }
  const Json all = proc.read(pids);
  REQUIRE(all.size() == 300);
  CHECK(all[0]["command"][0].get<std::string>().size() == 4096);
  CHECK(all[299]["command"][0] == "[sh]");
  CHECK(all.dump().size() < (2u << 20));
}

TEST_CASE("container.processes: one that ends meanwhile is left out") {
  const Proc proc;
  proc.add(71, "", "", "");
  proc.add(72, stat("sh"), "", "");
  CHECK(proc.read({71, 72, 73}).empty());
}
