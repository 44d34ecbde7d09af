#pragma once

#include "virtio/blk/disk.h"

namespace tsvmm::virtio {

/// The operations of a disk on its file. Several threads may work on several requests.
class FileOperations {
 public:
  explicit FileOperations(DiskFile file) : file_(std::move(file)) {}

  const DiskFile& file() const { return file_; }
  /// What needs no waiting. True: the request has finished, well or not. One thread.
  bool tryAtOnce(DiskRequest& request);
  /// All that is left of the request, however long it takes.
  void perform(DiskRequest& request);
  /// The descriptor for what is left of a transfer: direct I/O takes what is aligned, the page cache the
  /// rest.
  int descriptorFor(const DiskRequest& request) const;
  /// Takes what a system call for the rest of a transfer has returned (bytes or -errno) into account. True:
  /// there is more to do.
  bool moved(DiskRequest& request, int64_t result) const;

 private:
  int transfer(DiskRequest& request, int flags);
  void padLastSector(DiskRequest& request) const;
  int flush();
  int allocate(int mode, const DiskRequest::Range& range);
  int discard(const DiskRequest::Range& range);
  int zero(const DiskRequest::Range& range);
  int writeZeros(const DiskRequest::Range& range);

  const DiskFile file_;
  bool readsAtOnce_ = true;
  bool writesAtOnce_ = true;
};

/// Performs the requests that take waiting. Its end waits for those that it has begun and tells nobody.
class RequestEngine {
 public:
  virtual ~RequestEngine() = default;
  virtual void submit(DiskRequest& request) = 0;
  /// After submit().
  virtual void kick() = 0;
};

std::unique_ptr<RequestEngine> makeThreadsEngine(FileOperations& file, EventLoop& loop, DiskClient& client);
/// For kRead, kWrite and kFlush. Nothing, and `error` an errno, where there is no io_uring.
std::unique_ptr<RequestEngine> makeUringEngine(FileOperations& file, EventLoop& loop, DiskClient& client,
                                               int& error);

}  // namespace tsvmm::virtio
