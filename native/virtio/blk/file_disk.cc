#include <utility>

#include "virtio/blk/disk_file.h"

namespace tsvmm::virtio {
namespace {

class FileDisk final : public Disk {
 public:
  explicit FileDisk(DiskFile file) : file_(std::move(file)) {}
  ~FileDisk() override { detach(); }

  void attach(EventLoop& loop, DiskClient& client) override {
    loop_ = &loop;
    client_ = &client;
  }

  bool submit(DiskRequest& request) override {
    if (file_.tryAtOnce(request)) {
      return true;
    }
    engineFor(request).submit(request);
    return false;
  }

  void kick() override {
    if (uring_) {
      uring_->kick();
    }
    if (threads_) {
      threads_->kick();
    }
  }

  void detach() override {
    uring_.reset();
    threads_.reset();
  }

 private:
  RequestEngine& engineFor(const DiskRequest& request) {
    const bool transfers = request.ranges.empty();
    if (transfers && !noUring_ && file_.file().engine != DiskEngine::kThreads) {
      if (!uring_) {
        int error = 0;
        uring_ = makeUringEngine(file_, *loop_, *client_, error);
        noUring_ = uring_ == nullptr;
      }
      if (uring_) {
        return *uring_;
      }
    }
    if (!threads_) {
      threads_ = makeThreadsEngine(file_, *loop_, *client_);
    }
    return *threads_;
  }

  FileOperations file_;
  EventLoop* loop_ = nullptr;
  DiskClient* client_ = nullptr;
  bool noUring_ = false;
  std::unique_ptr<RequestEngine> uring_;
  std::unique_ptr<RequestEngine> threads_;
};

}  // namespace

std::unique_ptr<Disk> makeFileDisk(DiskFile file) { return std::make_unique<FileDisk>(std::move(file)); }

}  // namespace tsvmm::virtio
