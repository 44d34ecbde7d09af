#include "modules.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "error.h"
#include "io/fd.h"
#include "mounts.h"

namespace tsvmm::agent {

std::vector<std::string> loadModules(const char* list) {
  std::vector<std::string> failures;
  const std::string text = readFile(list);
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) {
      end = text.size();
    }
    const std::string path = text.substr(begin, end - begin);
    begin = end + 1;
    if (path.empty() || path.front() == '#') {
      continue;
    }
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    // EEXIST: built in, or loaded already.
    if (!fd || (syscall(SYS_finit_module, fd.get(), "", 0) != 0 && errno != EEXIST)) {
      failures.emplace_back(systemError("cannot load the module", path).what());
    }
  }
  return failures;
}

}  // namespace tsvmm::agent
