#include "stats.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <string>

#include "keyed.h"
#include "mounts.h"

using namespace tsvmm::agent;

namespace {

/// A control group of files, removed at the end.
class Group {
 public:
  Group() {
    char path[] = "/tmp/agent-group-XXXXXX";
    REQUIRE(mkdtemp(path) != nullptr);
    path_ = path;
  }
  ~Group() { removeTree(path_); }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  void add(const std::string& name, const std::string& content) const {
    REQUIRE(writeFile(path_ + "/" + name, content));
  }
  Json read() const { return readStats(path_); }

 private:
  std::string path_;
};

}  // namespace

TEST_CASE("container.stats: what a control group says") {
  const Group group;
  group.add("cpu.stat",
            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 5\n");
  group.add("memory.current", "4096\n");
  group.add("memory.max", "8192\n");
  group.add("memory.peak", "5000\n");
  group.add("memory.swap.current", "0\n");
  group.add("memory.swap.max", "max\n");
  group.add("memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n");
  group.add("memory.stat", "anon 100\nfile 200\n");
  group.add("pids.current", "3\n");
  group.add("pids.max", "max\n");
  group.add("io.stat", "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:1 \n");
  group.add("hugetlb.2MB.current", "10\n");
  group.add("hugetlb.2MB.max", "20\n");
  group.add("hugetlb.2MB.events", "max 3\n");
  group.add("hugetlb.2MB.rsvd.current", "0\n");
  CHECK(group.read() == Json::parse(R"({
    "cpu": {"usageNs": 30000, "userNs": 20000, "systemNs": 10000, "periods": 4, "throttledPeriods": 2,
            "throttledNs": 5000},
    "memory": {"usage": 4096, "limit": 8192, "max": 5000, "failcnt": 7, "swapUsage": 0, "oomKills": 1,
               "stat": {"anon": 100, "file": 200}},
    "pids": {"current": 3},
    "io": [{"major": 254, "minor": 0, "readBytes": 1, "writeBytes": 2, "readOps": 3, "writeOps": 4},
           {"major": 7, "minor": 1, "readBytes": 0, "writeBytes": 0, "readOps": 0, "writeOps": 0}],
    "hugetlb": [{"size": "2MB", "usage": 10, "max": 20, "failcnt": 3}]})"));
}

TEST_CASE("container.stats: a kernel without controllers") {
  const Group group;
  const Json stats = group.read();
  CHECK(stats["memory"]["usage"] == 0);
  CHECK(stats["pids"] == Json::parse(R"({"current": 0})"));
  CHECK(stats["io"].empty());
  CHECK_FALSE(stats.contains("hugetlb"));
}

TEST_CASE("lines of words and numbers") {
  CHECK(keyedNumber("a 1\nab 2\nb 18446744073709551615", "ab") == 2);
  CHECK(keyedNumber("a 1\nab 2\nb 18446744073709551615", "b") == 18446744073709551615u);
  CHECK(keyedNumber("a\n\nb x\n", "a") == 0);
  CHECK(keyedNumber("b x\n", "b") == 0);
  CHECK(keyedNumber("", "a") == 0);
}
