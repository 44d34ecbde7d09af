#include "cgroup_watch.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "error.h"

namespace tsvmm::agent {

CgroupWatch::CgroupWatch(Loop& loop, const std::string& path, std::function<void(const std::string&)> changed)
    : loop_(loop), fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)), changed_(std::move(changed)) {
  if (!fd_) {
    throw systemError("cannot watch", path);
  }
  // Changes are counted from what has been read.
  read();
  loop_.add(fd_.get(), EPOLLPRI, [this](std::uint32_t) { onEvent(); });
}

CgroupWatch::~CgroupWatch() { loop_.remove(fd_.get()); }

std::string CgroupWatch::read() {
  std::array<char, 4096> bytes;
  const ssize_t count = pread(fd_.get(), bytes.data(), bytes.size(), 0);
  return {bytes.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
}

void CgroupWatch::onEvent() {
  const std::string content = read();
  if (content.empty()) {
    // The group is gone: that would be told for ever.
    loop_.remove(fd_.get());
    return;
  }
  changed_(content);
}

}  // namespace tsvmm::agent
