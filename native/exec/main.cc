// tsvmm-exec: stands on the host for one process that `tsvmm exec` runs in a container. Descriptor 3: the
// request for the sandbox, a JSON text. Descriptor 4, with --report: "ok", or why not, once that is known.
// The descriptors after these are for the process, as many as --preserve says.
#include <unistd.h>

#include <string>

#include "exec/options.h"
#include "exec/session.h"

int main(int argc, char** argv) {
  tsvmm::exec::Options options;
  std::string error;
  if (!tsvmm::exec::parseOptions(argc, argv, options, error)) {
    error = "tsvmm-exec: " + error + "\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, error.data(), error.size());
    return 255;
  }
  tsvmm::exec::Session session(options);
  return session.run();
}
