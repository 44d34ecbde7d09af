#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "io/worker_pool.h"
#include "virtio/blk/disk.h"

namespace tsvmm::virtio {
namespace {

// More than this is copied by a worker even where the page cache has it: the I/O thread serves other devices
// too.
constexpr uint64_t kMaxAtOnce = 2 << 20;
constexpr size_t kZerosSize = 1 << 20;

/// Drops `count` bytes from the front of `parts`, of which the first is at `at`.
void advance(std::vector<iovec>& parts, size_t& at, uint64_t count) {
  while (at < parts.size() && count >= parts[at].iov_len) {
    count -= parts[at++].iov_len;
  }
  if (count != 0) {
    parts[at].iov_base = static_cast<uint8_t*>(parts[at].iov_base) + count;
    parts[at].iov_len -= count;
  }
}

class FileDisk final : public Disk {
 public:
  FileDisk(DiskFile file, unsigned threads) : file_(std::move(file)), threads_(threads) {}
  ~FileDisk() override { detach(); }

  void attach(EventLoop& loop, Finished finished) override {
    pool_ = std::make_unique<WorkerPool>(loop, threads_);
    attached_ = std::make_shared<Finished>(std::move(finished));
  }

  bool submit(DiskRequest& request) override {
    if (tryAtOnce(request)) {
      return true;
    }
    pool_->submit([this, &request] { perform(request); },
                  [weak = std::weak_ptr(attached_), &request] {
                    // After detach() the request may be gone.
                    if (const auto finished = weak.lock()) {
                      (*finished)(request);
                    }
                  });
    return false;
  }

  void detach() override {
    attached_.reset();
    pool_.reset();  // ends the work that was submitted
  }

 private:
  /// What needs no waiting. True: the request has finished, well or not.
  bool tryAtOnce(DiskRequest& request) {
    const bool reading = request.type == DiskRequest::Type::kRead;
    if (!reading && (request.type != DiskRequest::Type::kWrite || request.durable)) {
      return false;
    }
    bool& possible = reading ? readsAtOnce_ : writesAtOnce_;
    uint64_t size = 0;
    for (const iovec& part : request.parts) {
      size += part.iov_len;
    }
    if (size == 0) {
      return true;
    }
    if (!possible || size > kMaxAtOnce) {
      return false;
    }
    const int result = move(request, file_.inMemory ? 0 : RWF_NOWAIT);
    if (result == EOPNOTSUPP) {
      possible = false;
    }
    if (result == EAGAIN || result == EOPNOTSUPP) {
      return false;
    }
    request.error = result;
    return true;
  }

  /// Reads or writes what is left of the request. 0 or an errno; with RWF_NOWAIT, EAGAIN or EOPNOTSUPP says
  /// that the rest takes waiting.
  int move(DiskRequest& request, int flags) {
    const bool reading = request.type == DiskRequest::Type::kRead;
    size_t at = 0;
    int result = 0;
    while (at < request.parts.size()) {
      const int count = static_cast<int>(std::min<size_t>(request.parts.size() - at, IOV_MAX));
      const uint64_t position = request.offset + request.done;
      const ssize_t moved =
          reading ? preadv2(file_.fd.get(), &request.parts[at], count, static_cast<off_t>(position), flags)
                  : pwritev2(file_.fd.get(), &request.parts[at], count, static_cast<off_t>(position), flags);
      if (moved > 0) {
        request.done += static_cast<uint64_t>(moved);
        advance(request.parts, at, static_cast<uint64_t>(moved));
        continue;
      }
      if (moved < 0 && errno == EINTR) {
        continue;
      }
      if (moved < 0) {
        result = errno;
        break;
      }
      if (reading && position == file_.size && file_.size % 512 != 0) {
        padLastSector(request, at);
      }
      // The file has become shorter than it was.
      result = at < request.parts.size() ? EIO : 0;
      break;
    }
    request.parts.erase(request.parts.begin(), request.parts.begin() + static_cast<ptrdiff_t>(at));
    return result;
  }

  /// The file ends inside its last sector: the rest of it reads as zeros.
  void padLastSector(DiskRequest& request, size_t& at) {
    uint64_t left = 512 - file_.size % 512;
    while (left != 0 && at < request.parts.size()) {
      const size_t step = std::min<uint64_t>(left, request.parts[at].iov_len);
      std::memset(request.parts[at].iov_base, 0, step);
      request.done += step;
      left -= step;
      advance(request.parts, at, step);
    }
  }

  /// On a worker: everything, however long it takes.
  void perform(DiskRequest& request) {
    int error = 0;
    switch (request.type) {
      case DiskRequest::Type::kRead:
        error = move(request, 0);
        break;
      case DiskRequest::Type::kWrite:
        error = move(request, request.durable ? RWF_DSYNC : 0);
        break;
      case DiskRequest::Type::kFlush:
        error = flush();
        break;
      case DiskRequest::Type::kDiscard:
      case DiskRequest::Type::kZero:
        for (const DiskRequest::Range& range : request.ranges) {
          error = request.type == DiskRequest::Type::kDiscard ? discard(range) : zero(range);
          if (error != 0) {
            break;
          }
        }
        if (error == 0 && request.durable) {
          error = flush();
        }
        break;
    }
    request.error = error;
  }

  int flush() { return fdatasync(file_.fd.get()) == 0 ? 0 : errno; }

  int allocate(int mode, const DiskRequest::Range& range) {
    int result;
    do {
      result = fallocate(file_.fd.get(), mode | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.offset),
                         static_cast<off_t>(range.length));
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
  }

  int discard(const DiskRequest::Range& range) {
    int error;
    if (file_.blockDevice) {
      uint64_t bytes[2] = {range.offset, range.length};
      error = ioctl(file_.fd.get(), BLKDISCARD, bytes) == 0 ? 0 : errno;
    } else {
      error = allocate(FALLOC_FL_PUNCH_HOLE, range);
    }
    // A discard is a hint: a disk that cannot free blocks keeps them (virtio 1.2, 5.2.6.2).
    return error == EOPNOTSUPP || error == ENOSYS ? 0 : error;
  }

  int zero(const DiskRequest::Range& range) {
    if (range.length == 0) {
      return 0;
    }
    if (range.unmap) {
      const int error = allocate(FALLOC_FL_PUNCH_HOLE, range);
      if (error != EOPNOTSUPP && error != ENOSYS) {
        return error;
      }
    }
    const int error = allocate(FALLOC_FL_ZERO_RANGE, range);
    if (error != EOPNOTSUPP && error != ENOSYS) {
      return error;
    }
    return writeZeros(range);
  }

  int writeZeros(const DiskRequest::Range& range) {
    static const std::vector<uint8_t> zeros(kZerosSize);
    uint64_t done = 0;
    while (done < range.length) {
      const size_t step = std::min<uint64_t>(zeros.size(), range.length - done);
      const ssize_t written =
          pwrite(file_.fd.get(), zeros.data(), step, static_cast<off_t>(range.offset + done));
      if (written < 0 && errno == EINTR) {
        continue;
      }
      if (written <= 0) {
        return written == 0 ? EIO : errno;
      }
      done += static_cast<uint64_t>(written);
    }
    return 0;
  }

  const DiskFile file_;
  const unsigned threads_;
  bool readsAtOnce_ = true;
  bool writesAtOnce_ = true;
  std::unique_ptr<WorkerPool> pool_;
  std::shared_ptr<Finished> attached_;
};

}  // namespace

std::unique_ptr<Disk> makeFileDisk(DiskFile file, unsigned threads) {
  return std::make_unique<FileDisk>(std::move(file), threads);
}

}  // namespace tsvmm::virtio
