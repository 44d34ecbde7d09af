#include "io/uring.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tsvmm {
namespace {

// Of a kernel before 6.1 the headers may not have it.
constexpr unsigned kSetupCoopTaskrun = 1u << 8;

int setUp(unsigned entries, io_uring_params& parameters) {
  const auto attempt = [&](unsigned flags) {
    parameters = {};
    parameters.flags = flags;
    return static_cast<int>(syscall(SYS_io_uring_setup, entries, &parameters));
  };
  // Linux 5.19: a completion does not interrupt the thread while it is busy; it learns of it soon enough.
  const int fd = attempt(IORING_SETUP_CLAMP | kSetupCoopTaskrun);
  return fd >= 0 || errno != EINVAL ? fd : attempt(IORING_SETUP_CLAMP);
}

template <typename T>
T* at(void* base, uint32_t offset) {
  return reinterpret_cast<T*>(static_cast<uint8_t*>(base) + offset);
}

unsigned loadAcquire(const unsigned* from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
void storeRelease(unsigned* to, unsigned value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }

}  // namespace

std::unique_ptr<Uring> Uring::create(unsigned entries, int& error) {
  std::unique_ptr<Uring> uring(new Uring());
  io_uring_params parameters{};
  const auto failed = [&](int with) {
    error = with;
    return nullptr;
  };
  uring->ring_.reset(setUp(entries, parameters));
  if (!uring->ring_) {
    return failed(errno);
  }
  // SINGLE_MMAP (5.4), NODROP (5.5), RW_CUR_POS (5.6): the last stands for a kernel that has all the
  // operations which a disk needs (READ, WRITE, FALLOCATE).
  constexpr unsigned kNeeded = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_RW_CUR_POS;
  if ((parameters.features & kNeeded) != kNeeded) {
    return failed(EOPNOTSUPP);
  }
  uring->entries_ = parameters.sq_entries;
  uring->ringsSize_ = std::max<size_t>(parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned),
                                       parameters.cq_off.cqes + parameters.cq_entries * sizeof(io_uring_cqe));
  void* rings = mmap(nullptr, uring->ringsSize_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                     uring->ring_.get(), IORING_OFF_SQ_RING);
  if (rings == MAP_FAILED) {
    return failed(errno);
  }
  uring->rings_ = rings;
  const size_t submissionsSize = parameters.sq_entries * sizeof(io_uring_sqe);
  void* submissions =
      mmap(nullptr, submissionsSize, PROT_READ | PROT_WRITE, MAP_SHARED, uring->ring_.get(), IORING_OFF_SQES);
  if (submissions == MAP_FAILED) {
    return failed(errno);
  }
  uring->submissions_ = static_cast<io_uring_sqe*>(submissions);
  uring->submissionsSize_ = submissionsSize;
  uring->submissionTail_ = at<unsigned>(rings, parameters.sq_off.tail);
  uring->completionHead_ = at<unsigned>(rings, parameters.cq_off.head);
  uring->completionTail_ = at<unsigned>(rings, parameters.cq_off.tail);
  uring->completions_ = at<io_uring_cqe>(rings, parameters.cq_off.cqes);
  uring->completionMask_ = parameters.cq_entries - 1;
  // The submission ring names its entries by number; here each stands at its own place.
  auto* array = at<unsigned>(rings, parameters.sq_off.array);
  for (unsigned i = 0; i < parameters.sq_entries; i++) {
    array[i] = i;
  }
  uring->event_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!uring->event_) {
    return failed(errno);
  }
  int event = uring->event_.get();
  if (syscall(SYS_io_uring_register, uring->ring_.get(), IORING_REGISTER_EVENTFD, &event, 1) != 0) {
    return failed(errno);
  }
  return uring;
}

Uring::~Uring() {
  if (submissions_ != nullptr) {
    munmap(submissions_, submissionsSize_);
  }
  if (rings_ != nullptr) {
    munmap(rings_, ringsSize_);
  }
}

io_uring_sqe* Uring::prepare() {
  if (pending() == entries_) {
    return nullptr;
  }
  io_uring_sqe* entry = &submissions_[prepared_++ & (entries_ - 1)];
  std::memset(entry, 0, sizeof *entry);
  return entry;
}

int Uring::submit(unsigned wait) {
  storeRelease(submissionTail_, prepared_);
  // Completions that wait for the thread to enter the kernel (IORING_SQ_TASKRUN) come with GETEVENTS.
  const unsigned flags = wait != 0 ? IORING_ENTER_GETEVENTS : 0;
  while (true) {
    const auto taken = syscall(SYS_io_uring_enter, ring_.get(), pending(), wait, flags, nullptr, 0);
    if (taken >= 0) {
      submitted_ += static_cast<unsigned>(taken);
      return 0;
    }
    if (errno != EINTR) {
      return errno;
    }
  }
}

bool Uring::reap(uint64_t& data, int32_t& result) {
  const unsigned head = *completionHead_;
  if (head == loadAcquire(completionTail_)) {
    return false;
  }
  const io_uring_cqe& completion = completions_[head & completionMask_];
  data = completion.user_data;
  result = completion.res;
  storeRelease(completionHead_, head + 1);
  return true;
}

}  // namespace tsvmm
