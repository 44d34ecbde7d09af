#include "io/worker_pool.h"

#include <pthread.h>
#include <signal.h>

#include <system_error>
#include <utility>

namespace tsvmm {

WorkerPool::~WorkerPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void WorkerPool::submit(Function work, Function done) {
  std::unique_lock lock(mutex_);
  if (idle_ <= jobs_.size() && threads_.size() < maxThreads_) {
    // Signals belong to the JavaScript thread: a worker starts with all of them blocked.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      threads_.emplace_back([this] { run(); });
      pthread_setname_np(threads_.back().native_handle(), "tsvmm-worker");
    } catch (const std::system_error&) {
      // The limit on threads: those that run share the work.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  if (threads_.empty()) {
    lock.unlock();
    work();
    finish(std::move(done));
    return;
  }
  jobs_.push_back({std::move(work), std::move(done)});
  lock.unlock();
  wake_.notify_one();
}

void WorkerPool::drain() {
  std::unique_lock lock(mutex_);
  idleCondition_.wait(lock, [this] { return jobs_.empty() && running_ == 0; });
}

void WorkerPool::finish(Function done) {
  bool first;
  {
    std::lock_guard lock(finished_->mutex);
    first = finished_->functions.empty();
    finished_->functions.push_back(std::move(done));
  }
  if (first) {
    loop_.post([finished = finished_] {
      std::vector<Function> functions;
      {
        std::lock_guard lock(finished->mutex);
        functions.swap(finished->functions);
      }
      for (Function& function : functions) {
        function();
      }
    });
  }
}

void WorkerPool::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    idle_++;
    wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    idle_--;
    if (jobs_.empty()) {
      return;
    }
    {
      Job job = std::move(jobs_.front());
      jobs_.pop_front();
      running_++;
      lock.unlock();
      job.work();
      finish(std::move(job.done));
    }
    lock.lock();
    running_--;
    if (jobs_.empty() && running_ == 0) {
      idleCondition_.notify_all();
    }
  }
}

}  // namespace tsvmm
