#include "system/open_gate.h"

#include <fcntl.h>
#include <sys/fanotify.h>
#include <unistd.h>

#include <cerrno>

namespace tsvmm::system {

int OpenGate::open(const std::string& folder) {
  Fd group(fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY | O_CLOEXEC));
  if (!group || fanotify_mark(group.get(), FAN_MARK_ADD | FAN_MARK_ONLYDIR, FAN_OPEN_PERM | FAN_ONDIR,
                              AT_FDCWD, folder.c_str()) != 0) {
    return -errno;
  }
  group_ = std::move(group);
  return 0;
}

void OpenGate::serve(const std::function<void()>& onOpen) {
  alignas(fanotify_event_metadata) char buffer[4096];
  bool asked = false;
  for (;;) {
    ssize_t length = read(group_.get(), buffer, sizeof buffer);
    if (length <= 0) {
      break;
    }
    const auto* event = reinterpret_cast<const fanotify_event_metadata*>(buffer);
    for (; FAN_EVENT_OK(event, length); event = FAN_EVENT_NEXT(event, length)) {
      if (event->fd < 0) {
        continue;
      }
      Fd opened(event->fd);
      if (event->pid == getpid() || count_ == kMostWaiting) {
        allow(opened.get());
        continue;
      }
      waiting_[count_++] = std::move(opened);
      asked = true;
    }
  }
  if (asked) {
    onOpen();
  }
}

void OpenGate::letIn() {
  for (; count_ > 0; count_--) {
    allow(waiting_[count_ - 1].get());
    waiting_[count_ - 1] = Fd();
  }
}

void OpenGate::close() {
  letIn();
  group_ = Fd();
}

void OpenGate::allow(int event) {
  const fanotify_response response{.fd = event, .response = FAN_ALLOW};
  [[maybe_unused]] const ssize_t written = write(group_.get(), &response, sizeof response);
}

}  // namespace tsvmm::system
