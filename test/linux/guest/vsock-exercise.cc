// The init of a guest that speaks with its host by vsock; `exercise=unix` or `exercise=streams` on the
// kernel's command line says what about. One line a step. Linked statically.
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

[[noreturn]] void fail(const char* what) {
  printf("not ok: %s: %s\n", what, strerror(errno));
  fflush(stdout);
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

long ok(long result, const char* what) {
  if (result < 0) fail(what);
  return result;
}
#define OK(call) ok(call, #call)

sockaddr_vm address(unsigned cid, unsigned port) {
  sockaddr_vm at{};
  at.svm_family = AF_VSOCK;
  at.svm_cid = cid;
  at.svm_port = port;
  return at;
}

int socketFor(int flags = 0) {
  const int fd = static_cast<int>(OK(socket(AF_VSOCK, SOCK_STREAM | flags, 0)));
  // The machine may be an emulated and busy one.
  const timeval patience{120, 0};
  OK(setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof patience));
  return fd;
}

int connectTo(unsigned port) {
  const int fd = socketFor();
  const sockaddr_vm at = address(VMADDR_CID_HOST, port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) {
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  return fd;
}

int listenTo(unsigned port) {
  const int fd = socketFor();
  const sockaddr_vm at = address(VMADDR_CID_ANY, port);
  OK(bind(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at));
  OK(listen(fd, 128));
  return fd;
}

uint8_t patternAt(uint32_t seed, uint32_t index) {
  return static_cast<uint8_t>((index * 2654435761u + seed * 40503u) >> 13);
}

void writeAll(int fd, const uint8_t* bytes, size_t length) {
  while (length != 0) {
    const ssize_t n = OK(send(fd, bytes, length, MSG_NOSIGNAL));
    bytes += n;
    length -= static_cast<size_t>(n);
  }
}

/// Gives back what comes on each connection to the port, until its end.
void echoOn(unsigned port) {
  const int listener = listenTo(port);
  if (OK(fork()) != 0) return;
  for (;;) {
    const int fd = static_cast<int>(OK(accept(listener, nullptr, nullptr)));
    uint8_t bytes[65536];
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0) {
      for (ssize_t done = 0; done < n;) {
        const ssize_t sent = send(fd, bytes + done, static_cast<size_t>(n - done), MSG_NOSIGNAL);
        if (sent < 0) break;
        done += sent;
      }
    }
    close(fd);
  }
}

/// Many connections opened, written, read, half-closed and ended at once. The host gives back each byte
/// changed.
void manyConnections(unsigned port, uint32_t count, uint32_t bytes) {
  struct Connection {
    int fd;
    uint32_t sent;
    uint32_t received;
  };
  std::vector<Connection> connections(count);
  const int poller = static_cast<int>(OK(epoll_create1(0)));
  for (uint32_t i = 0; i < count; i++) {
    const int fd = socketFor(SOCK_NONBLOCK);
    const sockaddr_vm at = address(VMADDR_CID_HOST, port);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 && errno != EINPROGRESS) {
      fail("connect of one of many");
    }
    connections[i] = {fd, 0, 0};
    epoll_event event{EPOLLIN | EPOLLOUT, {.u32 = i}};
    OK(epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event));
  }
  uint32_t open = count;
  uint32_t most = 0;
  std::vector<uint8_t> buffer(8192);
  while (open != 0) {
    epoll_event events[256];
    const long ready = OK(epoll_wait(poller, events, 256, -1));
    for (long e = 0; e < ready; e++) {
      const uint32_t i = events[e].data.u32;
      Connection& connection = connections[i];
      if ((events[e].events & EPOLLOUT) != 0 && connection.sent < bytes) {
        const uint32_t length = std::min<uint32_t>(bytes - connection.sent, 4096);
        for (uint32_t at = 0; at < length; at++) buffer[at] = patternAt(i, connection.sent + at);
        const ssize_t n = send(connection.fd, buffer.data(), length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != ENOTCONN) fail("send of one of many");
        if (n > 0) connection.sent += static_cast<uint32_t>(n);
        if (connection.sent == bytes) {
          OK(shutdown(connection.fd, SHUT_WR));
          most = std::max(most, open);
          epoll_event event{EPOLLIN, {.u32 = i}};
          OK(epoll_ctl(poller, EPOLL_CTL_MOD, connection.fd, &event));
        }
      }
      if ((events[e].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) continue;
      const ssize_t n = recv(connection.fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN) fail("recv of one of many");
      for (ssize_t at = 0; at < n; at++) {
        if (buffer[static_cast<size_t>(at)] !=
            (patternAt(i, connection.received + static_cast<uint32_t>(at)) ^ 0x5a)) {
          errno = EILSEQ;
          fail("bytes of one of many");
        }
      }
      if (n > 0) connection.received += static_cast<uint32_t>(n);
      if (n == 0) {
        if (connection.received != bytes) {
          errno = ENODATA;
          fail("end of one of many");
        }
        close(connection.fd);
        open--;
      }
    }
  }
  close(poller);
  printf("%u connections, %u at once\n", count, most);
}

/// Waits for the other end to be gone, and says how it shows.
void waitForCut(int fd, const char* name) {
  char byte;
  ssize_t n;
  while ((n = recv(fd, &byte, 1, 0)) > 0) {
  }
  const ssize_t sent = send(fd, "x", 1, MSG_NOSIGNAL);
  printf("%s: %s\n", name, n == 0 && sent < 0 ? strerrorname_np(errno) : "not cut");
  close(fd);
}

void unixSockets() {
  echoOn(7000);
  printf("refused: %s\n", connectTo(5001) < 0 ? strerrorname_np(errno) : "no");
  manyConnections(5000, 1000, 4096);
  // The same ports again, at once.
  manyConnections(5000, 100, 100);
  const int victim = connectTo(5002);
  if (victim < 0) fail("connect to the victim");
  const std::vector<uint8_t> bytes(100000, 1);
  writeAll(victim, bytes.data(), bytes.size());
  printf("kill it\n");
  waitForCut(victim, "killed");
  printf("listening\n");
  char byte;
  const int control = connectTo(5003);
  if (control < 0) fail("connect to the control port");
  (void)!recv(control, &byte, 1, 0);
}

void streams() {
  // What we print goes to the host by a connection, too.
  const int output = connectTo(5004);
  if (output < 0) fail("connect to the output");
  dup2(output, 1);
  echoOn(7000);
  const int unread = listenTo(7002);
  const int control = connectTo(5003);
  if (control < 0) fail("connect to the control port");
  // A host that does not read holds us back.
  const int held = connectTo(5000);
  if (held < 0) fail("connect to the slow reader");
  constexpr uint32_t kTotal = 8 << 20;
  std::vector<uint8_t> bytes(kTotal);
  for (uint32_t i = 0; i < kTotal; i++) bytes[i] = patternAt(7, i);
  uint32_t sent = 0;
  pollfd room{held, POLLOUT, 0};
  while (sent < kTotal && poll(&room, 1, 500) == 1) {
    const ssize_t n = send(held, bytes.data() + sent, kTotal - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) fail("send to the slow reader");
    if (n > 0) sent += static_cast<uint32_t>(n);
  }
  printf("held back after %u\n", sent);
  writeAll(held, bytes.data() + sent, kTotal - sent);
  OK(shutdown(held, SHUT_WR));
  char byte;
  printf("slow reader: %s\n", recv(held, &byte, 1, 0) == 0 ? "end" : "no end");
  close(held);
  // We do not read, and are cut off.
  const int cut = static_cast<int>(OK(accept(unread, nullptr, nullptr)));
  if (recv(control, &byte, 1, 0) != 1) fail("the control connection");
  waitForCut(cut, "unread");
  // Restored: every connection is gone, and new ones work.
  waitForCut(control, "restored");
}

}  // namespace

int main() {
  mkdir("/proc", 0755);
  mkdir("/dev", 0755);
  mount("proc", "/proc", "proc", 0, nullptr);
  mount("devtmpfs", "/dev", "devtmpfs", 0, nullptr);
  const int console = open("/dev/console", O_RDWR);
  for (int fd = 0; fd < 3; fd++) dup2(console, fd);
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const rlimit files{8192, 8192};
  OK(setrlimit(RLIMIT_NOFILE, &files));
  char line[4096] = {};
  const int commandLine = open("/proc/cmdline", O_RDONLY);
  (void)!read(commandLine, line, sizeof line - 1);
  if (strstr(line, "exercise=unix") != nullptr) {
    unixSockets();
  } else {
    streams();
  }
  const int bye = strstr(line, "exercise=unix") != nullptr ? 1 : connectTo(5005);
  (void)!write(bye, "done\n", 5);
  char byte;
  if (bye != 1) (void)!read(bye, &byte, 1);
  reboot(RB_POWER_OFF);
  for (;;) pause();
}
