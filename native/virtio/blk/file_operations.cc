#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "virtio/blk/disk_file.h"

namespace tsvmm::virtio {
namespace {

// More than this is copied by an engine even where the page cache has it: the I/O thread serves other devices
// too.
constexpr uint64_t kMaxAtOnce = 2 << 20;
constexpr size_t kZerosSize = 1 << 20;

/// Drops `count` bytes from the front of what is left of `request`.
void advance(DiskRequest& request, uint64_t count) {
  auto& parts = request.parts;
  size_t& at = request.part;
  while (at < parts.size() && count >= parts[at].iov_len) {
    count -= parts[at++].iov_len;
  }
  if (count != 0) {
    parts[at].iov_base = static_cast<uint8_t*>(parts[at].iov_base) + count;
    parts[at].iov_len -= count;
  }
}

bool notSupported(int error) { return error == EOPNOTSUPP || error == ENOSYS; }

}  // namespace

bool FileOperations::tryAtOnce(DiskRequest& request) {
  const bool reading = request.type == DiskRequest::Type::kRead;
  if (!reading && request.type != DiskRequest::Type::kWrite) {
    if (request.type == DiskRequest::Type::kFlush && file_.inMemory) {
      request.error = flush();  // which has nothing to write to
      return true;
    }
    return false;
  }
  uint64_t size = 0;
  for (const iovec& part : request.parts) {
    size += part.iov_len;
  }
  if (size == 0 && !request.durable) {
    return true;
  }
  bool& possible = reading ? readsAtOnce_ : writesAtOnce_;
  if (size > kMaxAtOnce || !possible || file_.directFd || (request.durable && !file_.inMemory)) {
    return false;
  }
  const int result = transfer(request, file_.inMemory ? 0 : RWF_NOWAIT);
  if (result == EOPNOTSUPP) {
    possible = false;
  }
  if (result == EAGAIN || result == EOPNOTSUPP) {
    request.error = 0;
    return false;
  }
  return true;
}

int FileOperations::descriptorFor(const DiskRequest& request) const {
  if (!file_.directFd) {
    return file_.fd.get();
  }
  uint64_t bits = request.offset + request.done;
  for (size_t i = request.part; i < request.parts.size(); i++) {
    bits |= reinterpret_cast<uintptr_t>(request.parts[i].iov_base) | request.parts[i].iov_len;
  }
  return bits % file_.alignment == 0 ? file_.directFd.get() : file_.fd.get();
}

bool FileOperations::moved(DiskRequest& request, int64_t result) const {
  if (result == -EINTR) {
    return true;
  }
  if (result < 0) {
    request.error = static_cast<int>(-result);
    return false;
  }
  if (result > 0) {
    request.done += static_cast<uint64_t>(result);
    advance(request, static_cast<uint64_t>(result));
    return request.part < request.parts.size();
  }
  if (request.type == DiskRequest::Type::kRead && request.offset + request.done == file_.size &&
      file_.size % 512 != 0) {
    padLastSector(request);
  }
  if (request.part < request.parts.size()) {
    request.error = EIO;
    request.beyondEnd = request.type == DiskRequest::Type::kRead;
  }
  return false;
}

int FileOperations::transfer(DiskRequest& request, int flags) {
  while (request.part < request.parts.size()) {
    const auto count = static_cast<int>(std::min<size_t>(request.parts.size() - request.part, IOV_MAX));
    const auto position = static_cast<off_t>(request.offset + request.done);
    const iovec* parts = &request.parts[request.part];
    const int fd = descriptorFor(request);
    const bool reading = request.type == DiskRequest::Type::kRead;
    ssize_t result;
    if (count == 1 && flags == 0) {
      // A seventh less work for the kernel than a list of one.
      result = reading ? pread(fd, parts->iov_base, parts->iov_len, position)
                       : pwrite(fd, parts->iov_base, parts->iov_len, position);
    } else {
      result =
          reading ? preadv2(fd, parts, count, position, flags) : pwritev2(fd, parts, count, position, flags);
    }
    if (!moved(request, result < 0 ? -errno : result)) {
      break;
    }
  }
  return request.error;
}

/// The file ends inside its last sector: the rest of it reads as zeros.
void FileOperations::padLastSector(DiskRequest& request) const {
  uint64_t left = 512 - file_.size % 512;
  while (left != 0 && request.part < request.parts.size()) {
    const iovec& part = request.parts[request.part];
    const size_t step = std::min<uint64_t>(left, part.iov_len);
    std::memset(part.iov_base, 0, step);
    request.done += step;
    left -= step;
    advance(request, step);
  }
}

void FileOperations::perform(DiskRequest& request) {
  switch (request.type) {
    case DiskRequest::Type::kRead:
      transfer(request, 0);
      break;
    case DiskRequest::Type::kWrite:
      transfer(request, request.durable ? RWF_DSYNC : 0);
      break;
    case DiskRequest::Type::kFlush:
      request.error = flush();
      break;
    case DiskRequest::Type::kDiscard:
    case DiskRequest::Type::kZero:
      for (const DiskRequest::Range& range : request.ranges) {
        request.error = request.type == DiskRequest::Type::kDiscard ? discard(range) : zero(range);
        if (request.error != 0) {
          return;
        }
      }
      if (request.durable) {
        request.error = flush();
      }
      break;
  }
}

int FileOperations::flush() { return fdatasync(file_.fd.get()) == 0 ? 0 : errno; }

int FileOperations::allocate(int mode, const DiskRequest::Range& range) {
  int result;
  do {
    result = fallocate(file_.fd.get(), mode | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.offset),
                       static_cast<off_t>(range.length));
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

int FileOperations::discard(const DiskRequest::Range& range) {
  int error;
  if (file_.blockDevice) {
    uint64_t bytes[2] = {range.offset, range.length};
    error = ioctl(file_.fd.get(), BLKDISCARD, bytes) == 0 ? 0 : errno;
  } else {
    error = allocate(FALLOC_FL_PUNCH_HOLE, range);
  }
  // A discard is a hint: a disk that cannot free blocks keeps them (virtio 1.2, 5.2.6.2).
  return notSupported(error) ? 0 : error;
}

int FileOperations::zero(const DiskRequest::Range& range) {
  if (range.length == 0) {
    return 0;
  }
  if (range.unmap) {
    const int error = allocate(FALLOC_FL_PUNCH_HOLE, range);
    if (!notSupported(error)) {
      return error;
    }
  }
  const int error = allocate(FALLOC_FL_ZERO_RANGE, range);
  return notSupported(error) ? writeZeros(range) : error;
}

int FileOperations::writeZeros(const DiskRequest::Range& range) {
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

}  // namespace tsvmm::virtio
