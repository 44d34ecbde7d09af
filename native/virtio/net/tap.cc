#include "virtio/net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace tsvmm::virtio::net {
namespace {

constexpr const char* kDevice = "/dev/net/tun";

std::string message(int error) { return std::generic_category().message(error); }

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  throw std::runtime_error("tap " + name + ": " + what);
}

ifreq request(const std::string& name) {
  ifreq ifr{};
  std::memcpy(ifr.ifr_name, name.data(), std::min(name.size(), size_t{IFNAMSIZ - 1}));
  return ifr;
}

/// A socket for the interface ioctls; any family serves.
Fd interfaceSocket() { return Fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)); }

uint32_t mtuOf(const std::string& name) {
  const Fd socket = interfaceSocket();
  ifreq ifr = request(name);
  return socket && ioctl(socket.get(), SIOCGIFMTU, &ifr) == 0 ? static_cast<uint32_t>(ifr.ifr_mtu) : 0;
}

void bringUp(const std::string& name) {
  const Fd socket = interfaceSocket();
  ifreq ifr = request(name);
  if (!socket || ioctl(socket.get(), SIOCGIFFLAGS, &ifr) != 0) {
    refuse(name, "cannot read its flags: " + message(errno));
  }
  ifr.ifr_flags = static_cast<short>(ifr.ifr_flags | IFF_UP);
  if (ioctl(socket.get(), SIOCSIFFLAGS, &ifr) != 0) {
    refuse(name, "cannot be brought up: " + message(errno) + "; as root: ip link set " + name + " up");
  }
}

std::string whyNot(const TapOptions& options, bool exists, int error) {
  const std::string add = "ip tuntap add dev " + options.name + " mode tap user $USER" +
                          (options.pairs > 1 ? " multi_queue" : "") + " && ip link set " + options.name +
                          " up";
  switch (error) {
    case EPERM:
      return exists ? "it belongs to another user; as root: ip link del " + options.name + " && " + add
                    : "there is no such device, and only root may make one; as root: " + add;
    case EBUSY:
      return options.pairs > 1 ? "is in use by another process, or was made without multi_queue"
                               : "is in use by another process";
    case EINVAL:
      if (exists && options.pairs > 1) {
        return "is no TAP device with several queues; as root: ip link del " + options.name + " && " + add;
      }
      return exists ? "is no TAP device" : message(error);
    default:
      return message(error);
  }
}

void attach(int fd, const TapOptions& options, bool exists) {
  ifreq ifr = request(options.name);
  const int flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  ifr.ifr_flags = static_cast<short>(options.pairs > 1 ? flags | IFF_MULTI_QUEUE : flags);
  if (ioctl(fd, TUNSETIFF, &ifr) == 0) {
    return;
  }
  int error = errno;
  if (error == EINVAL && exists && options.pairs == 1) {
    // One that was made with multi_queue wants to be opened so.
    ifr.ifr_flags = static_cast<short>(flags | IFF_MULTI_QUEUE);
    if (ioctl(fd, TUNSETIFF, &ifr) == 0) {
      return;
    }
    error = errno;
  }
  refuse(options.name, whyNot(options, exists, error));
}

void setHeaderSize(int fd, const std::string& name) {
  int size = sizeof(Header);
  if (ioctl(fd, TUNSETVNETHDRSZ, &size) != 0) {
    refuse(name, "TUNSETVNETHDRSZ: " + message(errno));
  }
}

class TapBackend final : public Backend {
 public:
  explicit TapBackend(Tap tap) : tap_(std::move(tap)), attached_(tap_.queues.size(), true) {
    setOffloads(0);
    setActivePairs(1);
  }

  uint16_t pairs() const override { return static_cast<uint16_t>(tap_.queues.size()); }
  int descriptor(uint16_t pair) const override { return tap_.queues[pair].get(); }

  ssize_t read(uint16_t pair, std::span<const iovec> parts) override {
    const ssize_t count = ::readv(tap_.queues[pair].get(), parts.data(), static_cast<int>(parts.size()));
    return count >= 0 ? count : -errno;
  }

  int write(uint16_t pair, const Header& header, std::span<iovec> parts, size_t) override {
    parts[0] = {const_cast<Header*>(&header), sizeof header};
    return ::writev(tap_.queues[pair].get(), parts.data(), static_cast<int>(parts.size())) >= 0 ? 0 : -errno;
  }

  // EBADFD: the device has been deleted.
  bool gone(int error) const override { return error == EBADFD; }

  int setOffloads(uint64_t features) override {
    unsigned long flags = 0;
    if ((features & kFeatureGuestChecksum) != 0) {
      flags |= TUN_F_CSUM;
      flags |= (features & kFeatureGuestTso4) != 0 ? TUN_F_TSO4 : 0;
      flags |= (features & kFeatureGuestTso6) != 0 ? TUN_F_TSO6 : 0;
      flags |= (features & kFeatureGuestUfo) != 0 ? TUN_F_UFO : 0;
      // The kernel takes ECN only beside TSO.
      flags |=
          (features & kFeatureGuestEcn) != 0 && (flags & (TUN_F_TSO4 | TUN_F_TSO6)) != 0 ? TUN_F_TSO_ECN : 0;
    }
    return ioctl(tap_.queues[0].get(), TUNSETOFFLOAD, flags) == 0 ? 0 : errno;
  }

  int setActivePairs(uint16_t count) override {
    for (uint16_t i = 0; i < tap_.queues.size() && tap_.queues.size() > 1; i++) {
      const bool wanted = i < count;
      ifreq ifr{};
      ifr.ifr_flags = static_cast<short>(wanted ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
      if (attached_[i] != wanted) {
        if (ioctl(tap_.queues[i].get(), TUNSETQUEUE, &ifr) != 0) {
          return errno;
        }
        attached_[i] = wanted;
      }
    }
    return 0;
  }

  void setCarrier(bool up) override {
    int carrier = up ? 1 : 0;
    ioctl(tap_.queues[0].get(), TUNSETCARRIER, &carrier);  // kernels before 5.0 have none
  }

  std::string name() const override { return "tap " + tap_.name; }

 private:
  const Tap tap_;
  std::vector<bool> attached_;
};

}  // namespace

Tap openTap(const TapOptions& options) {
  Tap tap;
  tap.name = options.name;
  const bool exists = if_nametoindex(options.name.c_str()) != 0;
  for (uint16_t i = 0; i < options.pairs; i++) {
    Fd fd(open(kDevice, O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd) {
      const bool absent = errno == ENOENT || errno == ENODEV || errno == ENXIO;
      refuse(options.name,
             std::string(kDevice) + ": " + message(errno) +
                 (absent ? "; as root: modprobe tun" : "; as root: chmod 666 /dev/net/tun, or run as root"));
    }
    attach(fd.get(), options, exists);
    setHeaderSize(fd.get(), options.name);
    tap.queues.push_back(std::move(fd));
  }
  tap.created = !exists;
  if (tap.created || options.up) {
    bringUp(options.name);
  }
  tap.mtu = mtuOf(options.name);
  return tap;
}

Tap adoptTap(const std::vector<int>& descriptors) {
  Tap tap;
  for (const int descriptor : descriptors) {
    const std::string what = "descriptor " + std::to_string(descriptor);
    Fd fd(fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
    if (!fd) {
      refuse(what, "is not open");
    }
    ifreq ifr{};
    if (ioctl(fd.get(), TUNGETIFF, &ifr) != 0 || (ifr.ifr_flags & IFF_TAP) == 0) {
      refuse(what, "is no TAP device");
    }
    if ((ifr.ifr_flags & IFF_VNET_HDR) == 0 || (ifr.ifr_flags & IFF_NO_PI) == 0) {
      refuse(what, "was not opened with IFF_VNET_HDR and IFF_NO_PI");
    }
    if (!tap.name.empty() && tap.name != ifr.ifr_name) {
      refuse(what, std::string("is ") + ifr.ifr_name + ", not a further queue of " + tap.name);
    }
    tap.name = ifr.ifr_name;
    const int flags = fcntl(fd.get(), F_GETFL);
    fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK);
    setHeaderSize(fd.get(), tap.name);
    tap.queues.push_back(std::move(fd));
  }
  tap.mtu = mtuOf(tap.name);
  return tap;
}

std::unique_ptr<Backend> makeTapBackend(Tap tap) { return std::make_unique<TapBackend>(std::move(tap)); }

}  // namespace tsvmm::virtio::net
