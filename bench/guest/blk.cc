// The disk, /dev/vda, by O_DIRECT: past the guest's page cache, so that each operation is the device's.

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "measure.h"

namespace bench {
namespace {

constexpr size_t kBlock = 4096;

// Offsets of blocks in no order, the same in each run (xorshift).
class Offsets {
 public:
  explicit Offsets(uint64_t size) : blocks_(size / kBlock) {}
  off_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<off_t>(state_ % blocks_ * kBlock);
  }

 private:
  uint64_t blocks_;
  uint64_t state_ = 88172645463325252;
};

// Just enough of io_uring(7): reads, up to `depth` of them at once.
class Ring {
 public:
  Ring(int fd, unsigned depth) : fd_(fd), depth_(depth) {
    io_uring_params parameters = {};
    ring_ = static_cast<int>(syscall(SYS_io_uring_setup, depth, &parameters));
    if (ring_ < 0) die("io_uring_setup");
    const auto& sq = parameters.sq_off;
    const auto& cq = parameters.cq_off;
    char* submissions = map(sq.array + parameters.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    char* completions = map(cq.cqes + parameters.cq_entries * sizeof(io_uring_cqe), IORING_OFF_CQ_RING);
    sqes_ =
        reinterpret_cast<io_uring_sqe*>(map(parameters.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES));
    tail_ = reinterpret_cast<unsigned*>(submissions + sq.tail);
    mask_ = *reinterpret_cast<unsigned*>(submissions + sq.ring_mask);
    array_ = reinterpret_cast<unsigned*>(submissions + sq.array);
    head_ = reinterpret_cast<unsigned*>(completions + cq.head);
    completed_ = reinterpret_cast<unsigned*>(completions + cq.tail);
    completion_mask_ = *reinterpret_cast<unsigned*>(completions + cq.ring_mask);
    cqes_ = reinterpret_cast<io_uring_cqe*>(completions + cq.cqes);
    memory_ = buffer(depth * kBlock);
  }

  ~Ring() { close(ring_); }

  // Reads `count` blocks; as many as possible are always on their way.
  void read(Offsets& offsets, uint64_t count) {
    std::vector<unsigned> idle;
    for (unsigned slot = 0; slot < depth_; slot++) idle.push_back(slot);
    uint64_t started = 0;
    uint64_t done = 0;
    while (done < count) {
      unsigned submitted = 0;
      while (started < count && !idle.empty()) {
        push(idle.back(), offsets.next());
        idle.pop_back();
        started++;
        submitted++;
      }
      if (syscall(SYS_io_uring_enter, ring_, submitted, 1, IORING_ENTER_GETEVENTS, nullptr, 0) < 0) {
        die("io_uring_enter");
      }
      unsigned head = *head_;
      for (; head != std::atomic_ref(*completed_).load(std::memory_order_acquire); head++) {
        const io_uring_cqe& entry = cqes_[head & completion_mask_];
        if (entry.res != static_cast<int>(kBlock)) die("a read by io_uring");
        idle.push_back(static_cast<unsigned>(entry.user_data));
        done++;
      }
      std::atomic_ref(*head_).store(head, std::memory_order_release);
    }
  }

 private:
  char* map(size_t size, off_t what) {
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_, what);
    if (memory == MAP_FAILED) die("mmap of io_uring");
    return static_cast<char*>(memory);
  }

  void push(unsigned slot, off_t offset) {
    const unsigned tail = *tail_;
    io_uring_sqe& entry = sqes_[tail & mask_];
    entry = {};
    entry.opcode = IORING_OP_READ;
    entry.fd = fd_;
    entry.off = static_cast<uint64_t>(offset);
    entry.addr = reinterpret_cast<uint64_t>(memory_ + slot * kBlock);
    entry.len = kBlock;
    entry.user_data = slot;
    array_[tail & mask_] = tail & mask_;
    std::atomic_ref(*tail_).store(tail + 1, std::memory_order_release);
  }

  int fd_;
  unsigned depth_;
  int ring_;
  io_uring_sqe* sqes_;
  unsigned* tail_;
  unsigned mask_;
  unsigned* array_;
  unsigned* head_;
  unsigned* completed_;
  unsigned completion_mask_;
  io_uring_cqe* cqes_;
  char* memory_;
};

}  // namespace

void blk() {
  const int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
  if (fd < 0) die("/dev/vda");
  uint64_t size = 0;
  if (ioctl(fd, BLKGETSIZE64, &size) != 0 || size < 16 * kMiB) die("size of /dev/vda");
  Offsets offsets(size);
  char* memory = buffer(kMiB);
  const uint64_t count = operations(500);

  if (wanted("blk-d1-read")) {
    measure("blk-d1-read", count, [&](unsigned) {
      for (uint64_t i = 0; i < count; i++) {
        if (pread(fd, memory, kBlock, offsets.next()) != static_cast<ssize_t>(kBlock)) die("a read of 4 KiB");
      }
    });
  }
  if (wanted("blk-d16-read")) {
    Ring ring(fd, 16);
    measure("blk-d16-read", 4 * count, [&](unsigned) { ring.read(offsets, 4 * count); });
  }
  if (wanted("blk-d1-write")) {
    measure("blk-d1-write", count, [&](unsigned) {
      for (uint64_t i = 0; i < count; i++) {
        if (pwrite(fd, memory, kBlock, offsets.next()) != static_cast<ssize_t>(kBlock))
          die("a write of 4 KiB");
      }
    });
  }
  const uint64_t mebibytes = operations(32);
  const auto offset = [&](uint64_t i) { return static_cast<off_t>(i % (size / kMiB) * kMiB); };
  if (wanted("blk-mib-read")) {
    measure("blk-mib-read", mebibytes, [&](unsigned) {
      for (uint64_t i = 0; i < mebibytes; i++) {
        if (pread(fd, memory, kMiB, offset(i)) != static_cast<ssize_t>(kMiB)) die("a read of a MiB");
      }
    });
  }
  if (wanted("blk-mib-write")) {
    measure("blk-mib-write", mebibytes, [&](unsigned) {
      for (uint64_t i = 0; i < mebibytes; i++) {
        if (pwrite(fd, memory, kMiB, offset(i)) != static_cast<ssize_t>(kMiB)) die("a write of a MiB");
      }
    });
  }
  close(fd);
}

}  // namespace bench
