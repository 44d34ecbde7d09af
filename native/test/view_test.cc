// The container's view of the host's files. Each case is a child process, since the view is for good.
#include "system/view.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "io/fd.h"
#include "io/inherited_fd.h"

using namespace tsvmm;
using namespace tsvmm::system;
namespace fs = std::filesystem;

namespace {

void put(const fs::path& path, const std::string& text) {
  if (path.has_parent_path()) {
    fs::create_directories(path.parent_path());
  }
  std::ofstream(path) << text;
}

std::string get(const fs::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return file ? text.str() : "(none)";
}

/// rootfs and folders beside it, as a container's bundle is.
struct Bundle {
  Bundle() {
    char name[] = "/tmp/tsvmm-view-test-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
    chmod(name, 0755);
    put(path / "rootfs/etc/hostname", "guest");
    put(path / "data/file", "data");
    put(path / "resolv.conf", "nameserver");
    put(path / "state/state.json", "state");
    put(path / "victim/precious", "precious");
    for (const char* folder : {"rootfs/data", "rootfs/proc", "rootfs/tmp"}) {
      fs::create_directories(path / folder);
    }
    put(path / "rootfs/etc/resolv.conf", "");
    view = {.rootfs = path / "rootfs", .readOnly = false, .mounts = {}, .directory = path / "state"};
  }
  ~Bundle() { fs::remove_all(path); }

  fs::path path;
  View view;
};

bool becomeUserNamespaceRoot() {
  const auto uid = std::to_string(getuid()), gid = std::to_string(getgid());
  if (unshare(CLONE_NEWUSER) != 0) {
    return false;
  }
  std::ofstream("/proc/self/setgroups") << "deny";
  std::ofstream("/proc/self/uid_map") << "0 " + uid + " 1";
  std::ofstream("/proc/self/gid_map") << "0 " + gid + " 1";
  return getuid() == 0;
}

/// Runs `inside` in a child; what it returns, or the step that failed.
std::string child(bool userNamespace, const View& view, const std::function<std::string()>& inside) {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  const Fd read(ends[0]);
  Fd write(ends[1]);
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    std::string text;
    try {
      if (userNamespace && !becomeUserNamespaceRoot()) {
        text = "no user namespace";
      } else if (const auto error = enterView(view)) {
        text = error->step + ": " + std::to_string(error->error) + "\n" + inside();
      } else {
        text = inside();
      }
    } catch (const std::exception& thrown) {
      text = thrown.what();
    }
    [[maybe_unused]] const ssize_t written = ::write(write.get(), text.data(), text.size());
    _exit(0);
  }
  write.reset();
  std::string text;
  char bytes[4096];
  ssize_t count;
  while ((count = ::read(read.get(), bytes, sizeof bytes)) > 0) {
    text.append(bytes, static_cast<size_t>(count));
  }
  int status = 0;
  waitpid(pid, &status, 0);
  CHECK(status == 0);
  return text;
}

/// As root directly, and as the root of a user namespace of its own, which is all that an ordinary user can
/// be.
void everyWay(const std::function<void(bool userNamespace)>& test) {
  if (geteuid() == 0) {
    CAPTURE("as root");
    test(false);
  }
  CAPTURE("in a user namespace");
  test(true);
}

std::string mountCount() {
  std::ifstream file("/proc/self/mountinfo");
  std::string line, all;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string id, parent, device, root, place;
    fields >> id >> parent >> device >> root >> place;
    all += place + " ";
  }
  return all;
}

}  // namespace

TEST_CASE("view: an empty /proc of its own instead of the host's, where there is a place for it") {
  everyWay([](bool userNamespace) {
    Bundle bundle;
    bundle.view.emptyProc = true;
    const auto look = [] {
      put("/proc/1/stat", "1");
      return std::string(fs::exists("/proc/self") ? "host's" : "own");
    };
    CHECK(child(userNamespace, bundle.view, look) == "own");
    CHECK(!fs::exists(bundle.path / "rootfs/proc/1"));
    bool hasProc = false;
    const pid_t pid = fork();
    if (pid == 0) {
      fs::remove(bundle.path / "rootfs/proc");
      const bool failed = enterView(bundle.view, &hasProc).has_value();
      _exit(geteuid() == 0 && failed ? 1 : hasProc ? 2 : 0);
    }
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
  });
}

TEST_CASE("view: the rootfs with its mounts, and the state folder by relative paths") {
  everyWay([](bool userNamespace) {
    Bundle bundle;
    bundle.view.mounts = {{bundle.path / "data", "/data", true},
                          {bundle.path / "resolv.conf", "etc/resolv.conf"}};
    const std::string seen = child(userNamespace, bundle.view, [&] {
      put("written", "by a relative path");
      fs::rename("written", "renamed");
      put("/data/new", "refused");
      put("/tmp/new", "in the rootfs");
      put("/etc/resolv.conf", "through the bind");
      return get("/etc/hostname") + "|" + get("/data/file") + "|" + get("/data/new") + "|" +
             get("state.json") + "|" + get(bundle.path / "victim/precious") + "|" +
             (fs::exists("/proc/self/comm") ? "proc" : "none");
    });
    CHECK(seen == "guest|data|(none)|state|(none)|proc");
    CHECK(get(bundle.path / "state/renamed") == "by a relative path");
    CHECK(get(bundle.path / "rootfs/tmp/new") == "in the rootfs");
    CHECK(get(bundle.path / "resolv.conf") == "through the bind");
    CHECK(!fs::exists(bundle.path / "data/new"));
    CHECK(get(bundle.path / "rootfs/data/file") == "(none)");
  });
}

TEST_CASE("view: no other mount is left in it") {
  everyWay([](bool userNamespace) {
    Bundle bundle;
    bundle.view.mounts = {{bundle.path / "data", "/data"}};
    const std::string mounts = child(userNamespace, bundle.view, mountCount);
    std::istringstream places(mounts);
    std::string place;
    while (places >> place) {
      CAPTURE(place);
      CHECK((place == "/" || place == "/data" || place.starts_with("/proc")));
    }
    CHECK(mounts.find("/data ") != std::string::npos);
  });
}

TEST_CASE("view: a hostile rootfs leads no mount out of it") {
  everyWay([](bool userNamespace) {
    Bundle bundle;
    const fs::path rootfs = bundle.path / "rootfs";
    fs::create_directory_symlink(bundle.path / "victim", rootfs / "absolute");
    fs::create_directory_symlink("../../../../../../../.." + (bundle.path / "victim").string(),
                                 rootfs / "upwards");
    fs::create_directory_symlink("/proc/self/root" + (bundle.path / "victim").string(), rootfs / "magic");
    fs::create_directory_symlink("/data", rootfs / "inner");
    fs::remove(rootfs / "proc");
    fs::create_directory_symlink(bundle.path / "victim", rootfs / "proc");
    for (const char* destination : {"/absolute", "/upwards", "/magic", "../../victim", "/../../victim",
                                    "/absolute/../victim", "/inner"}) {
      bundle.view.mounts.push_back({bundle.path / "data", destination});
    }
    const std::string seen = child(userNamespace, bundle.view, [&] {
      return get("/data/file") + "|" + get("/absolute/file") + "|" + get("/victim/file");
    });
    CHECK(seen == "data|(none)|(none)");
    CHECK(get(bundle.path / "victim/file") == "(none)");
    CHECK(get(bundle.path / "victim/precious") == "precious");
    CHECK(!fs::exists(rootfs / "victim"));
  });
}

TEST_CASE("view: a mount whose place is missing or of the other type is left out, and nothing is created") {
  everyWay([](bool userNamespace) {
    Bundle bundle;
    fs::create_symlink("loop", bundle.path / "rootfs/loop");
    bundle.view.mounts = {{bundle.path / "data", "/missing/deep"},
                          {bundle.path / "data", "/etc/hostname"},
                          {bundle.path / "resolv.conf", "/tmp"},
                          {bundle.path / "data", "/loop"},
                          {bundle.path / "data", ""},
                          {bundle.path / "data", "/etc/hostname/x"}};
    fs::remove(bundle.path / "rootfs/proc");
    const std::string seen =
        child(userNamespace, bundle.view, [] { return get("/etc/hostname") + get("/data/file"); });
    CHECK(seen == "guest(none)");
    CHECK(!fs::exists(bundle.path / "rootfs/missing"));
    CHECK(!fs::exists(bundle.path / "rootfs/proc"));
  });
}

TEST_CASE("view: read-only, without devices and rights") {
  everyWay([](bool userNamespace) {
    Bundle bundle;
    bundle.view.readOnly = true;
    bundle.view.mounts = {{bundle.path / "data", "/data"}};
    const std::string seen = child(userNamespace, bundle.view, [] {
      put("/tmp/new", "x");
      put("/data/new", "writable");
      std::ifstream file("/proc/self/mountinfo");
      std::string line, options;
      for (int i = 0; i < 2 && std::getline(file, line); i++) {
        std::istringstream fields(line);
        for (int field = 0; field < 6; field++) {
          fields >> options;
        }
        line = options;
        if (line.find("nosuid") == std::string::npos || line.find("nodev") == std::string::npos) {
          return line;
        }
      }
      return get("/tmp/new") + get("/data/new");
    });
    CHECK(seen == "(none)writable");
    if (geteuid() == 0 && !userNamespace) {
      REQUIRE(mknod((bundle.path / "rootfs/null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0);
      CHECK(child(false, bundle.view, [] { return std::to_string(open("/null", O_RDONLY)); }) == "-1");
    }
  });
}

TEST_CASE("view: without a rootfs the mounts have places in memory") {
  everyWay([](bool userNamespace) {
    Bundle bundle;
    fs::create_directories(bundle.path / "data/inner");
    bundle.view.rootfs.clear();
    bundle.view.mounts = {{bundle.path / "data", "/mnt/data"},
                          {bundle.path / "resolv.conf", "/etc/resolv.conf"},
                          {bundle.path / "victim", "/mnt/data/new"},
                          {bundle.path / "victim", "/../x"}};
    const std::string seen = child(userNamespace, bundle.view, [] {
      put("/root-file", "x");
      return get("/mnt/data/file") + get("/etc/resolv.conf") + get("/root-file") + get("state.json") +
             (fs::exists("/proc/self/comm") ? "proc" : "none");
    });
    CHECK(seen == "datanameserver(none)stateproc");
    CHECK(!fs::exists(bundle.path / "data/new"));
  });
}

TEST_CASE(
    "view: descriptors that were given are opened again by the host's /proc, not by what the rootfs has "
    "there") {
  everyWay([](bool userNamespace) {
    Bundle bundle;
    fs::remove(bundle.path / "rootfs/proc");
    fs::create_directory_symlink("etc", bundle.path / "rootfs/proc");  // so that nothing is mounted there
    fs::create_directories(bundle.path / "rootfs/etc/self/fd");
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    const Fd read(ends[0]), write(ends[1]);
    put(bundle.path / "rootfs/etc/self/fd" / std::to_string(write.get()), "");
    const std::string seen = child(userNamespace, bundle.view, [&write] {
      const InheritedFd output(write.get(), InheritedFd::Direction::kWrite);
      const std::string block(65536, 'x');
      return std::to_string(output.write(block.data(), block.size()));
    });
    // More than PIPE_BUF, as far as the pipe holds it (less where the user has many, pipe(7)): it is a
    // description of its own, which does not wait.
    CHECK(seen == std::to_string(std::min(65536, fcntl(write.get(), F_GETPIPE_SZ))));
    CHECK(get(bundle.path / "rootfs/etc/self/fd" / std::to_string(write.get())).empty());
  });
}

TEST_CASE("view: what cannot be made is named, and the thread is where it was") {
  everyWay([](bool userNamespace) {
    Bundle bundle;
    const auto here = [&bundle] { return get(bundle.path / "victim/precious"); };
    View view = bundle.view;
    view.mounts = {{bundle.path / "data", "/data"}, {bundle.path / "none", "/data"}};
    CHECK(child(userNamespace, view, here) ==
          "open the source " + (bundle.path / "none").string() + ": -2\nprecious");
    view = bundle.view;
    view.rootfs = bundle.path / "none";
    CHECK(child(userNamespace, view, here) ==
          "bind the root file system " + (bundle.path / "none").string() + ": -2\nprecious");
    view = bundle.view;
    view.directory = bundle.path / "none";
    CHECK(child(userNamespace, view, here) == "open " + (bundle.path / "none").string() + ": -2\nprecious");
  });
}

TEST_CASE("view: no mount of the host is kept busy") {
  // In a mount namespace of this test's own, which stands for the host's.
  Bundle bundle;
  const bool asRoot = geteuid() == 0;
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    const auto step = [](bool right, int number) {
      if (!right) {
        _exit(number);
      }
    };
    step(asRoot || becomeUserNamespaceRoot(), 1);
    step(unshare(CLONE_NEWNS) == 0, 2);
    step(mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0, 3);
    const std::string disk = bundle.path / "victim";
    step(mount("tmpfs", disk.c_str(), "tmpfs", 0, nullptr) == 0, 4);
    int ready[2], done[2];
    step(pipe(ready) == 0 && pipe(done) == 0, 5);
    const pid_t inside = fork();
    if (inside == 0) {
      const bool right = !enterView(bundle.view);
      char byte = right ? 'y' : 'n';
      step(write(ready[1], &byte, 1) == 1, 6);
      close(done[1]);
      step(read(done[0], &byte, 1) == 0, 7);
      _exit(0);
    }
    char byte = 0;
    step(read(ready[0], &byte, 1) == 1 && byte == 'y', 8);
    step(umount(disk.c_str()) == 0, 9);
    step(rmdir((bundle.path / "victim/x").c_str()) != 0, 10);
    close(done[1]);
    int status = 0;
    waitpid(inside, &status, 0);
    _exit(status == 0 ? 0 : 11);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
