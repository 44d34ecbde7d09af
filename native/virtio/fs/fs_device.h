#pragma once

#include <sys/uio.h>

#include <memory>
#include <vector>

#include "virtio/device.h"
#include "virtio/fs/fuse_server.h"

namespace tsvmm::virtio::fs {

/// virtio-fs (virtio 1.2, 5.11): hands what comes in the high-priority queue (0) and the request queues (1
/// and up) to a FUSE server.
class FsDevice final : public Device {
 public:
  /// Throws std::system_error if the folder cannot be opened.
  explicit FsDevice(FuseOptions options) : server_(std::move(options)) {}
  ~FsDevice() override;

  void activate(Host& host) override;
  void notify(uint16_t index) override;
  void reset() override;
  void pause(std::function<void()> paused) override;
  void resume() override;
  Value save() override;
  void restore(Host& host, const Value& state) override;

  FuseServer& server() { return server_; }

 private:
  bool serve(uint16_t index, const Chain& chain);
  void tellLater(uint32_t count);
  void tellNow();
  void complete(uint64_t ticket, uint32_t written, bool failed);
  void countBytes();

  FuseServer server_;
  Host* host_ = nullptr;
  /// Ends with the activation: what was posted in it does nothing afterwards.
  std::shared_ptr<int> activation_;
  struct Kept {
    uint16_t queue;
    Chain chain;
  };
  std::vector<Kept> kept_;  ///< taken back by restore(), served by resume()
  bool paused_ = false;
  bool replied_ = false;  ///< serve() has given a reply since that was last cleared
  uint32_t untold_ = 0;   ///< chains of the high-priority queue that the driver was not interrupted for
  EventLoop::TimerId tellTimer_ = 0;
  std::vector<iovec> in_;   ///< of the request being served
  std::vector<iovec> out_;  ///< of the request being served
};

}  // namespace tsvmm::virtio::fs
