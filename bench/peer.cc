// The other end of the guest program's connections, on the host:
//
//     peer [tcp ADDRESS | vsock | unix PATH]...
//
// Prints "ready" when it listens everywhere, and serves one connection at a time, one request at a time, in
// the plainest way, so that the host's share of the work is the same whatever serves the guest. Ends with its
// standard input.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
// After sys/socket.h, whose types it uses.
#include <linux/vm_sockets.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "peer.h"

namespace bench {
namespace {

constexpr size_t kChunk = 256 << 10;

[[noreturn]] void die(const char* what) {
  perror(what);
  exit(1);
}

int listenAt(int family, const void* address, socklen_t size) {
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (fd < 0 || bind(fd, static_cast<const sockaddr*>(address), size) != 0 || listen(fd, 8) != 0) {
    die("peer: cannot listen");
  }
  return fd;
}

int listenTcp(const char* text) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(kPort);
  if (inet_pton(AF_INET, text, &address.sin_addr) != 1) die("peer: address");
  return listenAt(AF_INET, &address, sizeof address);
}

int listenVsock() {
  sockaddr_vm address = {};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = kPort;
  return listenAt(AF_VSOCK, &address, sizeof address);
}

int listenUnix(const char* path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (strlen(path) >= sizeof address.sun_path) die("peer: path");
  strcpy(address.sun_path, path);
  unlink(path);
  return listenAt(AF_UNIX, &address, sizeof address);
}

bool sendAll(int fd, const char* bytes, uint64_t size) {
  while (size > 0) {
    const ssize_t sent = send(fd, bytes, std::min<uint64_t>(size, kChunk), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    size -= static_cast<uint64_t>(sent);
  }
  return true;
}

bool receiveAll(int fd, char* bytes, uint64_t size) {
  while (size > 0) {
    const ssize_t got = recv(fd, bytes, std::min<uint64_t>(size, kChunk), 0);
    if (got <= 0) return false;
    size -= static_cast<uint64_t>(got);
  }
  return true;
}

bool echo(int fd, char* memory, uint64_t amount) {
  for (uint64_t i = 0; i < amount; i++) {
    if (!receiveAll(fd, memory, 1) || !sendAll(fd, memory, 1)) return false;
  }
  return true;
}

void serve(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // an error where it is no TCP
  std::vector<char> memory(kChunk, 0x5a);
  Request request;
  while (receiveAll(fd, reinterpret_cast<char*>(&request), sizeof request)) {
    bool going = false;
    switch (request.ask) {
      case Ask::kSink:
        going = receiveAll(fd, memory.data(), request.amount) && sendAll(fd, memory.data(), 1);
        break;
      case Ask::kSource:
        going = sendAll(fd, memory.data(), request.amount);
        break;
      case Ask::kEcho:
        going = echo(fd, memory.data(), request.amount);
        break;
    }
    if (!going) break;
  }
  close(fd);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  using namespace bench;
  std::vector<pollfd> sources = {{STDIN_FILENO, POLLIN, 0}};
  for (int i = 1; i < argc; i++) {
    const std::string_view kind = argv[i];
    const char* where = i + 1 < argc ? argv[i + 1] : "";
    if (kind == "vsock") {
      sources.push_back({listenVsock(), POLLIN, 0});
    } else if (kind == "tcp") {
      sources.push_back({listenTcp(where), POLLIN, 0});
      i++;
    } else if (kind == "unix") {
      sources.push_back({listenUnix(where), POLLIN, 0});
      i++;
    } else {
      fprintf(stderr, "peer: expected tcp ADDRESS, vsock or unix PATH, got %s\n", argv[i]);
      return 2;
    }
  }
  puts("ready");
  fflush(stdout);
  while (sources[0].revents == 0) {
    if (poll(sources.data(), sources.size(), -1) < 0) die("peer: poll");
    for (size_t i = 1; i < sources.size(); i++) {
      if (sources[i].revents == 0) continue;
      const int connection = accept4(sources[i].fd, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection >= 0) serve(connection);
    }
  }
  return 0;
}
