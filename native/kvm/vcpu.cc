#include "kvm/vcpu.h"

#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

namespace tsvmm {
namespace {

/// Its only effect is that KVM_RUN returns with EINTR.
int kickSignal() { return SIGRTMIN + 6; }

void installKickHandler() {
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    // No SA_RESTART: the point is the interruption.
    return sigaction(kickSignal(), &action, nullptr) == 0;
  }();
  (void)installed;
}

}  // namespace

VcpuThread::VcpuThread(uint32_t index, int fd, size_t mmapSize, const Bus& ports, const Bus& addresses,
                       Ended ended)
    : index_(index),
      fd_(fd),
      mmapSize_(mmapSize),
      ports_(ports),
      addresses_(addresses),
      ended_(std::move(ended)) {
  void* run = mmap(nullptr, mmapSize_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (run == MAP_FAILED) {
    throw std::system_error(errno, std::generic_category(), "mmap of the vCPU's kvm_run");
  }
  run_ = static_cast<kvm_run*>(run);
}

VcpuThread::~VcpuThread() {
  requestStop();
  join();
  munmap(run_, mmapSize_);
}

void VcpuThread::start() {
  installKickHandler();
  sigset_t mask, before;
  sigfillset(&mask);
  sigdelset(&mask, kickSignal());
  pthread_sigmask(SIG_SETMASK, &mask, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  char name[16];
  std::snprintf(name, sizeof name, "tsvmm-vcpu%u", index_);
  pthread_setname_np(thread_.native_handle(), name);
}

void VcpuThread::kick() {
  // immediate_exit closes the race with a vCPU that is just about to enter KVM_RUN (api.rst, 5).
  __atomic_store_n(&run_->immediate_exit, 1, __ATOMIC_SEQ_CST);
  if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) {
    pthread_kill(thread_.native_handle(), kickSignal());
  }
}

void VcpuThread::requestStop() {
  std::lock_guard lock(mutex_);
  if (state_ != State::kEnded) {
    state_ = State::kStopping;
    kick();
  }
  changed_.notify_all();
}

void VcpuThread::pause() {
  std::unique_lock lock(mutex_);
  if (state_ != State::kRunning) {
    return;
  }
  state_ = State::kPausing;
  kick();
  if (thread_.get_id() != std::this_thread::get_id()) {
    changed_.wait(lock, [this] { return state_ != State::kPausing; });
  }
}

void VcpuThread::resume() {
  std::lock_guard lock(mutex_);
  if (state_ == State::kPausing || state_ == State::kPaused) {
    state_ = State::kRunning;
  }
  changed_.notify_all();
}

void VcpuThread::join() {
  if (thread_.joinable()) {
    thread_.join();
  }
}

bool VcpuThread::checkState() {
  if (state_.load(std::memory_order_acquire) == State::kRunning) {
    return true;
  }
  std::unique_lock lock(mutex_);
  if (state_ == State::kPausing) {
    state_ = State::kPaused;
    changed_.notify_all();
    changed_.wait(lock, [this] { return state_ != State::kPaused; });
  }
  __atomic_store_n(&run_->immediate_exit, 0, __ATOMIC_SEQ_CST);
  return state_ == State::kRunning;
}

void VcpuThread::run() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  startedAt_ = static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  while (checkState()) {
    if (ioctl(fd_, KVM_RUN, nullptr) == 0) {
      exits_.fetch_add(1, std::memory_order_relaxed);
      if (!handleExit()) {
        break;
      }
    } else if (errno != EINTR && errno != EAGAIN) {
      VcpuExit exit;
      exit.vcpu = index_;
      exit.error = errno;
      ended_(exit);
      break;
    }
  }
  std::lock_guard lock(mutex_);
  state_ = State::kEnded;
  changed_.notify_all();
}

bool VcpuThread::handleExit() {
  switch (run_->exit_reason) {
    case KVM_EXIT_IO: {
      auto* data = reinterpret_cast<uint8_t*>(run_) + run_->io.data_offset;
      const size_t size = run_->io.size;
      for (uint32_t i = 0; i < run_->io.count; i++, data += size) {
        if (run_->io.direction == KVM_EXIT_IO_OUT) {
          ports_.write(run_->io.port, {data, size});
        } else {
          ports_.read(run_->io.port, {data, size});
        }
      }
      return true;
    }
    case KVM_EXIT_MMIO:
      if (run_->mmio.is_write) {
        addresses_.write(run_->mmio.phys_addr, {run_->mmio.data, run_->mmio.len});
      } else {
        addresses_.read(run_->mmio.phys_addr, {run_->mmio.data, run_->mmio.len});
      }
      return true;
    case KVM_EXIT_INTR:
      return true;
    default: {
      VcpuExit exit;
      exit.vcpu = index_;
      exit.reason = run_->exit_reason;
      if (exit.reason == KVM_EXIT_INTERNAL_ERROR) {
        exit.suberror = run_->internal.suberror;
      } else if (exit.reason == KVM_EXIT_SYSTEM_EVENT) {
        exit.suberror = run_->system_event.type;
      } else if (exit.reason == KVM_EXIT_FAIL_ENTRY || exit.reason == KVM_EXIT_UNKNOWN) {
        exit.hardwareReason = run_->fail_entry.hardware_entry_failure_reason;
      }
      ended_(exit);
      return false;
    }
  }
}

}  // namespace tsvmm
