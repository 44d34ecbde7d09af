// TCP over the network card, and vsock: bytes to the peer on the host, bytes from it, and a byte there and
// back.

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
// After sys/socket.h, whose types it uses.
#include <linux/vm_sockets.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "../peer.h"
#include "measure.h"

namespace bench {
namespace {

constexpr size_t kChunk = 128 << 10;

void sendAll(int fd, const char* bytes, uint64_t size) {
  while (size > 0) {
    const ssize_t sent = send(fd, bytes, std::min<uint64_t>(size, kChunk), MSG_NOSIGNAL);
    if (sent <= 0) die("send");
    size -= static_cast<uint64_t>(sent);
  }
}

void receiveAll(int fd, char* bytes, uint64_t size) {
  while (size > 0) {
    const ssize_t got = recv(fd, bytes, std::min<uint64_t>(size, kChunk), 0);
    if (got <= 0) die("recv");
    size -= static_cast<uint64_t>(got);
  }
}

void ask(int fd, Ask what, uint64_t amount) {
  const Request request = {what, 0, amount};
  sendAll(fd, reinterpret_cast<const char*>(&request), sizeof request);
}

void stream(int fd, const std::string& name) {
  char* memory = buffer(kChunk);
  const std::string out = name + "-out", in = name + "-in", round = name + "-round-trip";
  const uint64_t mebibytes = operations(16);
  if (wanted(out)) {
    measure(out.c_str(), mebibytes, [&](unsigned) {
      ask(fd, Ask::kSink, mebibytes * kMiB);
      sendAll(fd, memory, mebibytes * kMiB);
      receiveAll(fd, memory, 1);
    });
  }
  if (wanted(in)) {
    measure(in.c_str(), mebibytes, [&](unsigned) {
      ask(fd, Ask::kSource, mebibytes * kMiB);
      receiveAll(fd, memory, mebibytes * kMiB);
    });
  }
  if (wanted(round)) {
    const uint64_t count = operations(500);
    measure(round.c_str(), count, [&](unsigned) {
      ask(fd, Ask::kEcho, count);
      for (uint64_t i = 0; i < count; i++) {
        sendAll(fd, memory, 1);
        receiveAll(fd, memory, 1);
      }
    });
  }
  close(fd);
}

// Gives eth0 its address, 192.0.2.2/24 (TEST-NET-1, RFC 5737), and brings it up.
void bringUp() {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  ifreq request = {};
  strcpy(request.ifr_name, "eth0");
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  const auto set = [&](unsigned long what, const char* text) {
    inet_pton(AF_INET, text, &address.sin_addr);
    memcpy(&request.ifr_addr, &address, sizeof address);
    if (ioctl(fd, what, &request) != 0) die("address of eth0");
  };
  set(SIOCSIFADDR, "192.0.2.2");
  set(SIOCSIFNETMASK, "255.255.255.0");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) die("eth0 up");
  close(fd);
}

}  // namespace

void net() {
  bringUp();
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  sockaddr_in peer = {};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(kPort);
  inet_pton(AF_INET, "192.0.2.1", &peer.sin_addr);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof peer) != 0) die("connect by TCP");
  stream(fd, "net");
}

void vsock() {
  const int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket of vsock");
  sockaddr_vm peer = {};
  peer.svm_family = AF_VSOCK;
  peer.svm_cid = VMADDR_CID_HOST;
  peer.svm_port = kPort;
  if (connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof peer) != 0) die("connect by vsock");
  stream(fd, "vsock");
}

}  // namespace bench
