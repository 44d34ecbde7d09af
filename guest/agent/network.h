#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "json.h"

namespace tsvmm::agent {

struct InterfaceAddress {
  std::string address;
  std::uint8_t prefix = 0;
  /// Empty where there is none.
  std::string broadcast;
  /// The other end of a point-to-point link, which the prefix belongs to; empty where there is none.
  std::string peer;
  std::uint8_t scope = 0;
};

struct Interface {
  std::string name;
  /// Of the network card that becomes this interface.
  std::string mac;
  std::uint32_t mtu = 0;
  bool arp = true;
  std::vector<InterfaceAddress> addresses;
};

struct Route {
  enum class Type : std::uint8_t { kUnicast = 1, kBlackhole = 6, kUnreachable = 7, kProhibit = 8 };
  /// AF_INET or AF_INET6.
  int family = 0;
  /// Empty for the default route.
  std::string destination;
  std::uint8_t prefix = 0;
  /// Empty where what it leads to is on the link.
  std::string gateway;
  std::string device;
  std::string source;
  std::optional<std::uint32_t> metric;
  std::uint8_t scope = 0;
  std::uint8_t protocol = 0;
  bool onlink = false;
  Type type = Type::kUnicast;
  std::optional<std::uint32_t> mtu;
};

struct Neighbour {
  std::string address;
  std::string mac;
  std::string device;
};

/// A name server on the guest's loopback (resolver.h).
struct ResolverParams {
  std::string address;
  std::uint32_t port = 0;
};

struct NetworkParams {
  std::vector<Interface> interfaces;
  std::vector<Route> routes;
  std::vector<Neighbour> neighbours;
  std::optional<std::string> resolvConf;
  std::optional<ResolverParams> resolver;
};

/// Reads the parameters of `network.set`. Throws ParamsError, with the field's name and what was expected.
NetworkParams parseNetworkParams(const Json& params);

/// Puts routes into an order in which each can be added: those that say what is on the link before those that
/// lead to a gateway.
void orderRoutes(std::vector<Route>& routes);

/// Configures the guest's network cards, routes and neighbours, and writes /run/tsvmm-resolv.conf. Throws
/// OperationError, which names the interface, address, route or neighbour.
void setNetwork(NetworkParams params);

}  // namespace tsvmm::agent
