#pragma once

#include <linux/kvm.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "devices/bus.h"
#include "io/fd.h"

namespace tsvmm {

/// Why a vCPU's loop ended by itself. `reason` is KVM's exit reason, or 0 with `error` set where KVM_RUN
/// itself failed.
struct VcpuExit {
  uint32_t vcpu = 0;
  uint32_t reason = 0;
  uint32_t suberror = 0;        ///< of KVM_EXIT_INTERNAL_ERROR; the type of KVM_EXIT_SYSTEM_EVENT
  uint64_t hardwareReason = 0;  ///< of KVM_EXIT_FAIL_ENTRY and KVM_EXIT_UNKNOWN
  int error = 0;
};

/// The thread that runs one vCPU: KVM_RUN, and what its exits ask of the buses.
class VcpuThread {
 public:
  using Ended = std::function<void(const VcpuExit&)>;

  /// `fd` stays the caller's. `mmapSize` is KVM_GET_VCPU_MMAP_SIZE. Throws std::system_error.
  VcpuThread(uint32_t index, int fd, size_t mmapSize, const Bus& ports, const Bus& addresses, Ended ended);
  ~VcpuThread();
  VcpuThread(const VcpuThread&) = delete;
  VcpuThread& operator=(const VcpuThread&) = delete;

  void start();
  /// Asks the vCPU out of the guest and its loop to its end. Does not wait.
  void requestStop();
  /// Asks the vCPU out of the guest until resume(). Returns when it is out; at once on its own thread.
  void pause();
  void resume();
  void join();

  /// CLOCK_MONOTONIC of the moment before the first KVM_RUN, in nanoseconds; 0 before.
  uint64_t startedAt() const { return startedAt_.load(); }
  uint64_t exits() const { return exits_.load(std::memory_order_relaxed); }

 private:
  enum class State { kRunning, kPausing, kPaused, kStopping, kEnded };

  void run();
  void kick();
  /// Handles one exit; false ends the loop.
  bool handleExit();
  /// Waits while paused; false when the loop shall end.
  bool checkState();

  const uint32_t index_;
  const int fd_;
  const size_t mmapSize_;
  kvm_run* run_ = nullptr;
  const Bus& ports_;
  const Bus& addresses_;
  Ended ended_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<State> state_{State::kRunning};
  std::atomic<uint64_t> startedAt_{0};
  std::atomic<uint64_t> exits_{0};
};

}  // namespace tsvmm
