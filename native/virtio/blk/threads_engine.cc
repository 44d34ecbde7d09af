#include <mutex>
#include <utility>

#include "io/worker_pool.h"
#include "virtio/blk/disk_file.h"

namespace tsvmm::virtio {
namespace {

constexpr unsigned kThreads = 4;

class ThreadsEngine final : public RequestEngine {
 public:
  ThreadsEngine(FileOperations& file, EventLoop& loop, DiskClient& client)
      : file_(file), state_(std::make_shared<State>(client)), pool_(loop, kThreads) {}

  void submit(DiskRequest& request) override {
    pool_.submit(
        [this, &request] {
          file_.perform(request);
          std::lock_guard lock(state_->mutex);
          state_->finished.push_back(&request);
        },
        [weak = std::weak_ptr(state_)] {
          // Gone with the engine: then the requests may be gone, too.
          if (const auto state = weak.lock()) {
            state->deliver();
          }
        });
  }

  void kick() override {}

 private:
  struct State {
    explicit State(DiskClient& to) : client(to) {}
    DiskClient& client;
    std::mutex mutex;
    std::vector<DiskRequest*> finished;

    void deliver() {
      std::vector<DiskRequest*> requests;
      {
        std::lock_guard lock(mutex);
        requests.swap(finished);
      }
      if (requests.empty()) {
        return;  // the first of several took them all
      }
      for (DiskRequest* request : requests) {
        client.finished(*request);
      }
      client.settled();
    }
  };

  FileOperations& file_;
  std::shared_ptr<State> state_;
  WorkerPool pool_;  // the last: its end waits for work that uses the others
};

}  // namespace

std::unique_ptr<RequestEngine> makeThreadsEngine(FileOperations& file, EventLoop& loop, DiskClient& client) {
  return std::make_unique<ThreadsEngine>(file, loop, client);
}

}  // namespace tsvmm::virtio
