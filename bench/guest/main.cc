// The program that the bench of the devices runs as /init, the same under each monitor. It measures, prints
// lines
//
//     bench: NAME LEAST MEDIAN        nanoseconds an operation (or a MiB): of the quickest batch, of the
//     median batch bench: end                      everything has been measured bench: error: ... something
//     failed; nothing follows
//
// on the console, and ends the machine. Words of the kernel's command line steer it:
//
//     BENCH_TESTS=blk,net-round       which tests: beginnings of their names; default all
//     BENCH_BATCHES=5                 batches of each, after one to warm up
//     BENCH_SCALE=100                 operations a batch, in per cent of the usual
//     BENCH_IDLE=1                    says `bench: end` at once, and stays
//     BENCH_END=reboot                resets instead of powering off

#include <fcntl.h>
#include <linux/reboot.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string_view>
#include <vector>

#include "measure.h"

namespace bench {
namespace {

[[noreturn]] void end() {
  fflush(stdout);
  const char* how = getenv("BENCH_END");
  reboot(how != nullptr && std::string_view(how) == "reboot" ? RB_AUTOBOOT : RB_POWER_OFF);
  for (;;) pause();
}

bool asked(const std::function<bool(std::string_view)>& matches) {
  const char* tests = getenv("BENCH_TESTS");
  if (tests == nullptr) return true;
  std::string_view rest(tests);
  while (!rest.empty()) {
    const std::string_view one = rest.substr(0, rest.find(','));
    if (matches(one)) return true;
    rest.remove_prefix(std::min(rest.size(), one.size() + 1));
  }
  return false;
}

}  // namespace

void die(const char* what) {
  printf("bench: error: %s: %s\n", what, strerror(errno));
  end();
}

uint64_t now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

uint64_t parameter(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text == nullptr ? otherwise : strtoull(text, nullptr, 10);
}

uint64_t operations(uint64_t usual) {
  return std::max<uint64_t>(1, usual * parameter("BENCH_SCALE", 100) / 100);
}

bool wanted(std::string_view name) {
  return asked([name](std::string_view one) { return name.starts_with(one); });
}

bool wantedAny(std::string_view group) {
  return asked([group](std::string_view one) { return one.starts_with(group) || group.starts_with(one); });
}

void measure(const char* name, uint64_t count, const std::function<void(unsigned)>& batch,
             const std::function<void()>& before) {
  std::vector<double> times(std::max<uint64_t>(1, parameter("BENCH_BATCHES", 5)));
  before();
  batch(0);
  for (unsigned number = 0; number < times.size(); number++) {
    before();
    const uint64_t start = now();
    batch(number + 1);
    times[number] = static_cast<double>(now() - start) / static_cast<double>(count);
  }
  std::sort(times.begin(), times.end());
  printf("bench: %s %.0f %.0f\n", name, times.front(), times[times.size() / 2]);
  fflush(stdout);
}

char* buffer(size_t size) {
  void* memory =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) die("mmap");
  memset(memory, 0x5a, size);
  return static_cast<char*>(memory);
}

}  // namespace bench

int main() {
  using namespace bench;
  mkdir("/proc", 0755);
  mkdir("/dev", 0755);
  if (mount("proc", "/proc", "proc", 0, nullptr) != 0) die("mount /proc");
  if (mount("dev", "/dev", "devtmpfs", 0, nullptr) != 0 && errno != EBUSY) die("mount /dev");
  if (parameter("BENCH_IDLE", 0) != 0) {
    puts("bench: end");
    fflush(stdout);
    for (;;) pause();
  }
  if (wantedAny("blk")) blk();
  if (wantedAny("net")) net();
  if (wantedAny("vsock")) vsock();
  if (wantedAny("fs")) fs();
  puts("bench: end");
  end();
}
