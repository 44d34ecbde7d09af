// What tsvmm-exec reads from a sandbox (native/exec/message.cc).
#include "exec/message.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using tsvmm::exec::Message;
  const Message message = tsvmm::exec::parseMessage({reinterpret_cast<const char*>(data), size});
  if (message.kind == Message::Kind::kExit && (message.status < 0 || message.status > 255)) {
    std::abort();
  }
  for (const char character : message.text) {
    if (static_cast<unsigned char>(character) < 0x20 || character == 0x7f) {
      std::abort();
    }
  }
  return 0;
}
