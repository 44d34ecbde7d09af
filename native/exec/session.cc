#include "exec/session.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "system/unix_socket.h"

namespace tsvmm::exec {
namespace {

constexpr int kRequest = 3;
constexpr int kReport = 4;
// No line that matters here is longer.
constexpr size_t kMostLine = size_t{256} << 10;

std::string failure(const std::string& what, int number) { return what + ": " + strerror(number); }

void writeAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      return;
    }
    text.remove_prefix(static_cast<size_t>(count));
  }
}

std::string notification(const char* method, const std::string& params) {
  return std::string("{\"jsonrpc\":\"2.0\",\"method\":\"") + method + "\",\"params\":{" + params + "}}\n";
}

}  // namespace

int Session::run() {
  std::string error;
  if (!takeSignals()) {
    fail(failure("signals", errno));
  } else if (!console_.open(options_, error)) {
    fail(error);
  } else if (sendRequest()) {
    while (serve() == Outcome::kGoesOn) {
    }
  }
  console_.restore();
  return status_;
}

bool Session::takeSignals() {
  sigset_t all;
  sigfillset(&all);
  // These two are the terminal's, for who uses it from the background: they stop this program only.
  sigdelset(&all, SIGTTIN);
  sigdelset(&all, SIGTTOU);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  signals_.reset(signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK));
  return static_cast<bool>(signals_);
}

/// The request goes on as it is read, so that a large one takes no memory here.
bool Session::sendRequest() {
  if (const int error = system::connectUnix(options_.socket, 10000, socket_); error < 0) {
    const bool gone = error == -ENOENT || error == -ECONNREFUSED;
    fail(gone ? "the container's sandbox is not running" : failure("control socket", -error));
    return false;
  }
  std::vector<int> fds = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};
  if (console_.isPty()) {
    fds = {console_.slave(), console_.slave()};
  } else if (options_.terminal) {
    fds.pop_back();
  }
  const int first = options_.report ? kReport + 1 : kRequest + 1;
  for (int i = 0; i < options_.preserved; i++) {
    fds.push_back(first + i);
  }
  bool sent = false;
  const auto send = [&](std::string_view part) {
    const int error = system::sendWithFds(socket_.get(), part, sent ? std::vector<int>{} : fds);
    // Where the sandbox has refused it already, its answer says why.
    if (error < 0 && error != -EPIPE && error != -ECONNRESET) {
      fail(failure("control socket", -error));
      return false;
    }
    sent = true;
    return true;
  };
  char bytes[8192];
  for (;;) {
    const ssize_t count = read(kRequest, bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      fail(failure("descriptor 3", errno));
      return false;
    }
    if (count == 0) {
      break;
    }
    for (ssize_t i = 0; i < count; i++) {
      bytes[i] = bytes[i] == '\n' ? ' ' : bytes[i];  // between two tokens, since it is JSON
    }
    if (!send({bytes, static_cast<size_t>(count)})) {
      return false;
    }
  }
  if (!send("\n")) {
    return false;
  }
  // Who waits for the end of one of these gets it from the process, not from here.
  close(kRequest);
  for (int i = 0; i < options_.preserved; i++) {
    close(first + i);
  }
  return true;
}

Session::Outcome Session::serve() {
  pollfd entries[2] = {{signals_.get(), POLLIN, 0}, {socket_.get(), POLLIN, 0}};
  if (running_ && (pending_ != 0 || resized_)) {
    entries[1].events |= POLLOUT;
  }
  if (poll(entries, 2, -1) < 0) {
    return errno == EINTR ? Outcome::kGoesOn : fail(failure("poll", errno));
  }
  if (entries[0].revents != 0 && readSignals() == Outcome::kEnds) {
    return Outcome::kEnds;
  }
  if ((entries[1].revents & (POLLIN | POLLHUP | POLLERR)) != 0 && readSocket() == Outcome::kEnds) {
    return Outcome::kEnds;
  }
  flush();
  return Outcome::kGoesOn;
}

Session::Outcome Session::readSignals() {
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    const int number = static_cast<int>(info.ssi_signo);
    if (number == SIGWINCH) {
      resized_ = true;
      continue;
    }
    // A child that Node had started before it became this program; a pipe of this program's own.
    if (number == SIGCHLD || number == SIGURG ||
        (number == SIGPIPE && info.ssi_pid == static_cast<uint32_t>(getpid()))) {
      continue;
    }
    if (number == SIGCONT) {
      console_.makeRaw();
      resized_ = true;
    }
    if (!running_ && (number == SIGHUP || number == SIGINT || number == SIGQUIT || number == SIGTERM)) {
      fail(std::string("ended by signal ") + std::to_string(number) + " before the process ran");
      status_ = 128 + number;
      return Outcome::kEnds;
    }
    pending_ |= uint64_t{1} << (number - 1);
  }
  return Outcome::kGoesOn;
}

Session::Outcome Session::readSocket() {
  char bytes[4096];
  const ssize_t count = recv(socket_.get(), bytes, sizeof bytes, MSG_DONTWAIT);
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) {
    return Outcome::kGoesOn;
  }
  if (count <= 0) {
    return fail(running_ ? "the container's sandbox has gone"
                         : "the container's sandbox has gone without an answer");
  }
  input_.append(bytes, static_cast<size_t>(count));
  size_t begin = 0;
  for (size_t end; (end = input_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    if (handle(parseMessage(std::string_view(input_).substr(begin, end - begin))) == Outcome::kEnds) {
      return Outcome::kEnds;
    }
  }
  input_.erase(0, begin);
  if (input_.size() > kMostLine) {
    return fail("the sandbox's answer is too long");
  }
  return Outcome::kGoesOn;
}

Session::Outcome Session::handle(const Message& message) {
  switch (message.kind) {
    case Message::Kind::kRunning:
      return running_ ? Outcome::kGoesOn : started();
    case Message::Kind::kRefused:
      if (running_) {
        break;  // of a signal that came too late, say
      }
      return fail(message.text.empty() ? "the sandbox refused without a reason" : message.text);
    case Message::Kind::kExit:
      if (!running_) {
        return fail("the process ended before it ran");
      }
      status_ = message.status;
      return Outcome::kEnds;
    case Message::Kind::kBroken:
      return fail("the sandbox's answer is not one");
    case Message::Kind::kOther:
      break;
  }
  return Outcome::kGoesOn;
}

Session::Outcome Session::started() {
  std::string error;
  if (!options_.pidFile.empty() && !writePidFile(error)) {
    return fail(error);
  }
  running_ = true;
  resized_ = true;  // it may have changed since the request was written
  if (options_.report) {
    report("ok\n");
    // As a process that was started in the background: who reads to the end of its output has not to wait for
    // this program.
    const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
    for (int fd = 0; fd < 3 && null; fd++) {
      dup2(null.get(), fd);
    }
  }
  return Outcome::kGoesOn;
}

Session::Outcome Session::fail(const std::string& message) {
  console_.restore();
  status_ = 255;
  if (options_.report && !running_) {
    report(message + "\n");
  } else {
    writeAll(STDERR_FILENO, "tsvmm: " + message + "\n");
  }
  return Outcome::kEnds;
}

void Session::report(std::string_view text) {
  writeAll(kReport, text);
  close(kReport);
}

/// Sends what is pending, as far as the sandbox takes it.
void Session::flush() {
  if (!running_) {
    return;
  }
  for (int number = 1; number <= 64 && pending_ != 0; number++) {
    const uint64_t bit = uint64_t{1} << (number - 1);
    if ((pending_ & bit) != 0) {
      if (!sendLine(notification("signal", "\"signal\":" + std::to_string(number)))) {
        return;
      }
      pending_ &= ~bit;
    }
  }
  Console::Size size;
  if (resized_) {
    resized_ = console_.size(size) &&
               !sendLine(notification("resize", "\"rows\":" + std::to_string(size.rows) +
                                                    ",\"columns\":" + std::to_string(size.columns)));
  }
}

/// False where the sandbox takes none for now. So short a line is sent as a whole, or not at all.
bool Session::sendLine(const std::string& line) {
  ssize_t count;
  do {
    count = ::send(socket_.get(), line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (count < 0 && errno == EINTR);
  return count >= 0 || errno != EAGAIN;  // a connection that is broken is found by readSocket()
}

/// By another file that is renamed: who waits for the file never sees it without the number.
bool Session::writePidFile(std::string& error) const {
  const size_t name = options_.pidFile.rfind('/') + 1;  // npos + 1 is 0
  std::string draft = options_.pidFile;
  draft.insert(name, ".");
  draft += "." + std::to_string(getpid());
  const Fd file(open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!file) {
    error = failure("pid file " + options_.pidFile, errno);
    return false;
  }
  const std::string text = std::to_string(getpid());
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      rename(draft.c_str(), options_.pidFile.c_str()) != 0) {
    error = failure("pid file " + options_.pidFile, errno);
    unlink(draft.c_str());
    return false;
  }
  return true;
}

}  // namespace tsvmm::exec
