#include <limits.h>
#include <linux/fs.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <deque>

#include "io/uring.h"
#include "virtio/blk/disk_file.h"

namespace tsvmm::virtio {
namespace {

constexpr unsigned kEntries = 128;
// How long to wait where the kernel has no memory for a submission and nothing is in flight that would tell.
constexpr auto kRetry = std::chrono::milliseconds(2);

/// One ring a disk: what a visit to the queues has submitted goes to the kernel in one system call, and
/// completions come by an eventfd that the loop watches.
class UringEngine final : public RequestEngine {
 public:
  UringEngine(std::unique_ptr<Uring> ring, FileOperations& file, EventLoop& loop, DiskClient& client)
      : ring_(std::move(ring)), file_(file), loop_(loop), client_(client) {
    loop_.add(ring_->eventFd(), EPOLLIN | EPOLLET, [this](uint32_t) { run(); });
  }

  ~UringEngine() override {
    loop_.remove(ring_->eventFd());
    loop_.cancel(retry_);
    // What has not been begun is forgotten; what has been must come to its end.
    uint64_t data;
    int32_t result;
    while (inFlight_ > 0) {
      ring_->submit(1);
      while (ring_->reap(data, result)) {
        inFlight_--;
      }
    }
  }

  void submit(DiskRequest& request) override { waiting_.push_back(&request); }

  void kick() override { run(); }

 private:
  void run() {
    if (running_) {
      return;  // the client called from inside finished() or settled(): the loop below goes on
    }
    running_ = true;
    do {
      begin();
      reap();
    } while (!waiting_.empty() && inFlight_ < ring_->entries() && ring_->pending() == 0);
    running_ = false;
  }

  void begin() {
    while (!waiting_.empty() && inFlight_ < ring_->entries()) {
      prepare(*waiting_.front());
      waiting_.pop_front();
      inFlight_++;
    }
    if (ring_->pending() != 0) {
      ring_->submit();
    }
    if (ring_->pending() != 0 && !retrying_) {
      retrying_ = true;
      retry_ = loop_.after(kRetry, [this] {
        retrying_ = false;
        run();
      });
    }
  }

  void prepare(DiskRequest& request) {
    io_uring_sqe& entry = *ring_->prepare();
    entry.user_data = reinterpret_cast<uint64_t>(&request);
    if (request.type == DiskRequest::Type::kFlush) {
      entry.opcode = IORING_OP_FSYNC;
      entry.fd = file_.file().fd.get();
      entry.fsync_flags = IORING_FSYNC_DATASYNC;
      return;
    }
    const bool reading = request.type == DiskRequest::Type::kRead;
    const size_t count = std::min<size_t>(request.parts.size() - request.part, IOV_MAX);
    entry.fd = file_.descriptorFor(request);
    entry.off = request.offset + request.done;
    entry.rw_flags = !reading && request.durable ? RWF_DSYNC : 0;
    // A file in memory is here because there is much to copy: not on this thread.
    entry.flags = request.waits || file_.file().inMemory ? IOSQE_ASYNC : 0;
    if (count == 1) {
      const iovec& part = request.parts[request.part];
      entry.opcode = reading ? IORING_OP_READ : IORING_OP_WRITE;
      entry.addr = reinterpret_cast<uint64_t>(part.iov_base);
      entry.len = static_cast<uint32_t>(part.iov_len);
    } else {
      entry.opcode = reading ? IORING_OP_READV : IORING_OP_WRITEV;
      entry.addr = reinterpret_cast<uint64_t>(request.parts.data() + request.part);
      entry.len = static_cast<uint32_t>(count);
    }
  }

  void reap() {
    uint64_t data;
    int32_t result;
    bool any = false;
    while (ring_->reap(data, result)) {
      inFlight_--;
      auto& request = *reinterpret_cast<DiskRequest*>(data);
      if (goesOn(request, result)) {
        waiting_.push_front(&request);
        continue;
      }
      client_.finished(request);
      any = true;
    }
    if (any) {
      client_.settled();
    }
  }

  /// Takes a completion into account. True: there is more to do for the request.
  bool goesOn(DiskRequest& request, int32_t result) {
    if (request.type == DiskRequest::Type::kFlush) {
      request.error = result < 0 ? -result : 0;
      return result == -EINTR;
    }
    if (result == -EAGAIN && !request.waits) {
      request.waits = true;  // a file system that cannot do without: on a thread of the kernel's
      return true;
    }
    return file_.moved(request, result);
  }

  const std::unique_ptr<Uring> ring_;
  FileOperations& file_;
  EventLoop& loop_;
  DiskClient& client_;
  std::deque<DiskRequest*> waiting_;
  unsigned inFlight_ = 0;
  bool running_ = false;
  bool retrying_ = false;
  EventLoop::TimerId retry_ = 0;
};

}  // namespace

std::unique_ptr<RequestEngine> makeUringEngine(FileOperations& file, EventLoop& loop, DiskClient& client,
                                               int& error) {
  auto ring = Uring::create(kEntries, error);
  return ring ? std::make_unique<UringEngine>(std::move(ring), file, loop, client) : nullptr;
}

}  // namespace tsvmm::virtio
