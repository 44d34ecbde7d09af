// What the tests of the guest program share. See main.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

namespace bench {

// Ends the program with a line that says what failed, and errno.
[[noreturn]] void die(const char* what);

// CLOCK_MONOTONIC, in nanoseconds. In the testbed with -i that is instructions, those of the host too.
uint64_t now();

// The number that the kernel's command line gives as NAME=NUMBER (it hands such words to init as
// environment), or `otherwise`.
uint64_t parameter(const char* name, uint64_t otherwise);

// `usual` operations a batch, as BENCH_SCALE has them: at least 1.
uint64_t operations(uint64_t usual);

// True where the command line's BENCH_TESTS asks for this test: a list of beginnings of names, by commas; all
// where it is absent.
bool wanted(std::string_view name);

// True where any test whose name begins with this may be asked for.
bool wantedAny(std::string_view group);

// Runs `batch(number)` BENCH_BATCHES + 1 times, each of which does `count` operations; the first is to warm
// up. Prints "bench: NAME LEAST MEDIAN", the nanoseconds an operation of the quickest and of the median
// batch. `before` comes before each and is not timed.
void measure(
    const char* name, uint64_t count, const std::function<void(unsigned)>& batch,
    const std::function<void()>& before = [] {});

// Memory of `size` bytes, page aligned, touched.
char* buffer(size_t size);

inline constexpr size_t kMiB = 1 << 20;

void blk();
void net();
void vsock();
void fs();

}  // namespace bench
