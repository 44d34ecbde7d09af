#include "network.h"

#include <arpa/inet.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>

#include "error.h"
#include "mounts.h"
#include "netlink.h"

namespace tsvmm::agent {

namespace {

constexpr const char* kResolvConf = "/run/tsvmm-resolv.conf";

struct Card {
  int index = 0;
  std::string name;
  std::string mac;
};

std::string bytesOf(int family, const std::string& address) {
  std::uint8_t bytes[sizeof(in6_addr)];
  inet_pton(family, address.c_str(), bytes);
  return {reinterpret_cast<const char*>(bytes), family == AF_INET ? sizeof(in_addr) : sizeof(in6_addr)};
}

int familyOf(const std::string& address) {
  return address.find(':') == std::string::npos ? AF_INET : AF_INET6;
}

std::string macText(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    char part[4];
    snprintf(part, sizeof part, "%s%02x", text.empty() ? "" : ":", static_cast<unsigned char>(byte));
    text += part;
  }
  return text;
}

std::string macBytes(const std::string& text) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 3) {
    bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

std::string withNul(const std::string& text) { return {text.c_str(), text.size() + 1}; }

ifinfomsg linkHeader(int index, unsigned flags = 0, unsigned change = 0) {
  ifinfomsg link{};
  link.ifi_index = index;
  link.ifi_flags = flags;
  link.ifi_change = change;
  return link;
}

/// Makes one request; what it was for is part of the error.
void perform(Netlink& netlink, NetlinkMessage message, const std::string& what) {
  if (const int error = netlink.request(message); error != 0) {
    throw systemError("network: cannot", what, error);
  }
}

std::vector<Card> listCards(Netlink& netlink) {
  std::vector<Card> cards;
  NetlinkMessage ask(RTM_GETLINK, 0, linkHeader(0));
  netlink.dump(ask, [&](std::string_view entry) {
    ifinfomsg link;
    if (entry.size() < sizeof link) {
      return;
    }
    std::memcpy(&link, entry.data(), sizeof link);
    const std::string_view attributes = entry.substr(NLMSG_ALIGN(sizeof link));
    const std::string name(findAttribute(attributes, IFLA_IFNAME));
    if ((link.ifi_flags & IFF_LOOPBACK) == 0) {
      cards.push_back({link.ifi_index, name.c_str(), macText(findAttribute(attributes, IFLA_ADDRESS))});
    }
  });
  return cards;
}

void rename(Netlink& netlink, Card& card, const std::string& name) {
  NetlinkMessage message(RTM_NEWLINK, 0, linkHeader(card.index));
  message.attribute(IFLA_IFNAME, withNul(name));
  perform(netlink, message, "name " + card.name + " " + name);
  card.name = name;
}

/// Gives each card its interface's name. One that is in another's way goes aside first.
void nameCards(Netlink& netlink, std::vector<Card>& cards,
               const std::vector<std::pair<std::size_t, std::string>>& names) {
  for (const auto& [index, name] : names) {
    if (cards[index].name == name) {
      continue;
    }
    for (Card& other : cards) {
      if (other.name == name) {
        rename(netlink, other, "tsvmm" + std::to_string(other.index));
      }
    }
    rename(netlink, cards[index], name);
  }
}

/// The kernel makes no address of its own, so that the guest has those of the host's interface only.
void noOwnAddress(Netlink& netlink, int index) {
  NetlinkMessage message(RTM_NEWLINK, 0, linkHeader(index));
  message.nested(IFLA_AF_SPEC, [&] {
    message.nested(AF_INET6, [&] {
      const std::uint8_t none = IN6_ADDR_GEN_MODE_NONE;
      message.attribute(IFLA_INET6_ADDR_GEN_MODE, {reinterpret_cast<const char*>(&none), 1});
    });
  });
  // A kernel without IPv6 has none to make.
  netlink.request(message);
}

void bringUp(Netlink& netlink, int index, const Interface& interface) {
  noOwnAddress(netlink, index);
  const unsigned flags = interface.arp ? unsigned{IFF_UP} : unsigned{IFF_UP} | unsigned{IFF_NOARP};
  NetlinkMessage message(RTM_NEWLINK, 0, linkHeader(index, flags, flags));
  if (interface.mtu != 0) {
    message.number(IFLA_MTU, interface.mtu);
  }
  perform(netlink, message, "bring up " + interface.name);
}

void addAddress(Netlink& netlink, int index, const Interface& interface, const InterfaceAddress& item) {
  const int family = familyOf(item.address);
  ifaddrmsg header{};
  header.ifa_family = static_cast<std::uint8_t>(family);
  header.ifa_prefixlen = item.prefix;
  header.ifa_scope = item.scope;
  header.ifa_index = static_cast<unsigned>(index);
  NetlinkMessage message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, header);
  message.attribute(IFA_LOCAL, bytesOf(family, item.address));
  message.attribute(IFA_ADDRESS, bytesOf(family, item.peer.empty() ? item.address : item.peer));
  if (!item.broadcast.empty()) {
    message.attribute(IFA_BROADCAST, bytesOf(family, item.broadcast));
  }
  // The host has found out that nobody else has it, and what is on the link is among the routes.
  message.number(IFA_FLAGS, IFA_F_PERMANENT | IFA_F_NOPREFIXROUTE | (family == AF_INET6 ? IFA_F_NODAD : 0U));
  perform(netlink, message,
          "add " + item.address + "/" + std::to_string(item.prefix) + " to " + interface.name);
}

std::string routeText(const Route& route) {
  std::string text =
      route.destination.empty() ? "default" : route.destination + "/" + std::to_string(route.prefix);
  if (!route.gateway.empty()) {
    text += " via " + route.gateway;
  }
  return route.device.empty() ? text : text + " dev " + route.device;
}

void addRoute(Netlink& netlink, const Route& route, const std::map<std::string, int>& indexes) {
  const std::string what = "add the route " + routeText(route);
  rtmsg header{};
  header.rtm_family = static_cast<std::uint8_t>(route.family);
  header.rtm_dst_len = route.prefix;
  header.rtm_table = RT_TABLE_MAIN;
  header.rtm_protocol = route.protocol;
  header.rtm_scope = route.scope;
  header.rtm_type = static_cast<std::uint8_t>(route.type);
  header.rtm_flags = route.onlink ? RTNH_F_ONLINK : 0U;
  // Several can lead to one destination, by different interfaces.
  NetlinkMessage message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, header);
  if (!route.destination.empty()) {
    message.attribute(RTA_DST, bytesOf(route.family, route.destination));
  }
  if (!route.device.empty()) {
    const auto index = indexes.find(route.device);
    if (index == indexes.end()) {
      throw OperationError("network: cannot " + what + ": there is no such interface");
    }
    message.number(RTA_OIF, static_cast<std::uint32_t>(index->second));
  }
  if (const int family = familyOf(route.gateway); !route.gateway.empty() && family == route.family) {
    message.attribute(RTA_GATEWAY, bytesOf(family, route.gateway));
  } else if (!route.gateway.empty()) {
    const auto number = static_cast<std::uint16_t>(family);
    message.attribute(RTA_VIA, std::string(reinterpret_cast<const char*>(&number), sizeof number) +
                                   bytesOf(family, route.gateway));
  }
  if (!route.source.empty()) {
    message.attribute(RTA_PREFSRC, bytesOf(route.family, route.source));
  }
  if (route.metric) {
    message.number(RTA_PRIORITY, *route.metric);
  }
  if (route.mtu) {
    message.nested(RTA_METRICS, [&] { message.number(RTAX_MTU, *route.mtu); });
  }
  // One that is there is what was asked for: the kernel makes some by itself.
  if (const int error = netlink.request(message); error != 0 && error != EEXIST) {
    throw systemError("network: cannot", what, error);
  }
}

void addNeighbour(Netlink& netlink, const Neighbour& neighbour, const std::map<std::string, int>& indexes) {
  const std::string what = "add the neighbour " + neighbour.address + " at " + neighbour.device;
  const auto index = indexes.find(neighbour.device);
  if (index == indexes.end()) {
    throw OperationError("network: cannot " + what + ": there is no such interface");
  }
  const int family = familyOf(neighbour.address);
  ndmsg header{};
  header.ndm_family = static_cast<std::uint8_t>(family);
  header.ndm_ifindex = index->second;
  header.ndm_state = NUD_PERMANENT;
  NetlinkMessage message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, header);
  message.attribute(NDA_DST, bytesOf(family, neighbour.address));
  message.attribute(NDA_LLADDR, macBytes(neighbour.mac));
  perform(netlink, message, what);
}

/// The card of each interface, in their order.
std::vector<std::size_t> matchCards(const std::vector<Card>& cards,
                                    const std::vector<Interface>& interfaces) {
  std::set<std::size_t> used;
  std::vector<std::size_t> matches;
  for (const Interface& interface : interfaces) {
    std::size_t found = 0;
    while (found < cards.size() && (cards[found].mac != interface.mac || used.count(found) != 0)) {
      found++;
    }
    if (found == cards.size()) {
      throw OperationError("network: " + interface.name + ": there is no network card " + interface.mac);
    }
    used.insert(found);
    matches.push_back(found);
  }
  return matches;
}

}  // namespace

void setNetwork(NetworkParams params) {
  if (params.resolvConf && !writeFile(kResolvConf, *params.resolvConf)) {
    throw systemError("network: cannot write", kResolvConf);
  }
  if (params.interfaces.empty()) {
    return;
  }
  Netlink netlink;
  std::vector<Card> cards = listCards(netlink);
  const std::vector<std::size_t> matches = matchCards(cards, params.interfaces);
  std::vector<std::pair<std::size_t, std::string>> names;
  std::map<std::string, int> indexes;
  for (std::size_t i = 0; i < matches.size(); i++) {
    names.emplace_back(matches[i], params.interfaces[i].name);
    indexes[params.interfaces[i].name] = cards[matches[i]].index;
  }
  nameCards(netlink, cards, names);
  for (const Interface& interface : params.interfaces) {
    const int index = indexes[interface.name];
    bringUp(netlink, index, interface);
    for (const InterfaceAddress& item : interface.addresses) {
      addAddress(netlink, index, interface, item);
    }
  }
  orderRoutes(params.routes);
  for (const Route& route : params.routes) {
    addRoute(netlink, route, indexes);
  }
  for (const Neighbour& neighbour : params.neighbours) {
    addNeighbour(netlink, neighbour, indexes);
  }
}

}  // namespace tsvmm::agent
