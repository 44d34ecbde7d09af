#include "network.h"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "error.h"
#include "netlink.h"

using namespace tsvmm::agent;

namespace {

const char* const kSet = R"({
  "interfaces": [{
    "name": "eth0", "mac": "52:54:00:12:34:56", "mtu": 1400,
    "addresses": [
      {"address": "10.0.0.2", "prefix": 24, "broadcast": "10.0.0.255"},
      {"address": "fe80::1", "prefix": 64, "scope": 253}
    ]
  }],
  "routes": [
    {"destination": "default", "family": 4, "gateway": "10.0.0.1", "device": "eth0", "metric": 7},
    {"destination": "10.0.0.0/24", "family": 4, "device": "eth0", "source": "10.0.0.2", "scope": 253, "protocol": 2},
    {"destination": "192.0.2.1/32", "family": 4, "gateway": "203.0.113.1", "device": "eth0", "onlink": true},
    {"destination": "fd00::/8", "family": 6, "type": "blackhole"}
  ],
  "neighbours": [{"address": "10.0.0.1", "mac": "02:00:00:00:00:01", "device": "eth0"}],
  "resolvConf": "nameserver 10.0.0.1\n"
})";

/// The refusal of the good parameters with the value at a JSON pointer replaced.
std::string refusal(const std::string& pointer, const std::string& value) {
  Json params = Json::parse(kSet);
  params[Json::json_pointer(pointer)] = Json::parse(value);
  try {
    parseNetworkParams(params);
  } catch (const ParamsError& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("network.set: an interface, routes, a neighbour and resolvers") {
  const NetworkParams params = parseNetworkParams(Json::parse(kSet));
  REQUIRE(params.interfaces.size() == 1);
  CHECK(params.interfaces[0].mtu == 1400);
  CHECK(params.interfaces[0].arp);
  REQUIRE(params.interfaces[0].addresses.size() == 2);
  CHECK(params.interfaces[0].addresses[0].broadcast == "10.0.0.255");
  CHECK(params.interfaces[0].addresses[1].scope == 253);
  REQUIRE(params.routes.size() == 4);
  CHECK(params.routes[0].destination.empty());
  CHECK(params.routes[0].metric == 7u);
  CHECK(params.routes[0].protocol == 4);
  CHECK(params.routes[1].prefix == 24);
  CHECK(params.routes[1].protocol == 2);
  CHECK(params.routes[2].onlink);
  CHECK(params.routes[3].type == Route::Type::kBlackhole);
  CHECK(params.neighbours[0].mac == "02:00:00:00:00:01");
  CHECK(params.resolvConf == "nameserver 10.0.0.1\n");
  CHECK(parseNetworkParams(Json::object()).interfaces.empty());
}

TEST_CASE("network.set: routes that others depend on come first, the rest in their order") {
  NetworkParams params = parseNetworkParams(Json::parse(kSet));
  orderRoutes(params.routes);
  std::vector<std::string> order;
  for (const Route& route : params.routes) {
    order.push_back(route.destination);
  }
  CHECK(order == std::vector<std::string>{"10.0.0.0", "fd00::", "192.0.2.1", ""});
}

TEST_CASE("network.set: what is wrong is named") {
  CHECK(refusal("/interfaces", "{}") == "interfaces: expected an array of at most 64 elements");
  CHECK(refusal("/interfaces/0", "1") == "interfaces[0]: expected an object");
  CHECK(refusal("/interfaces/0/name", R"("a/b")") ==
        "interfaces[0].name: expected an interface's name of 1 to 15 bytes");
  CHECK(refusal("/interfaces/0/name", R"("0123456789abcdef")") ==
        "interfaces[0].name: expected an interface's name of 1 to 15 bytes");
  CHECK(refusal("/interfaces/0/mac", R"("52:54:00:12:34")") ==
        "interfaces[0].mac: expected six bytes like 52:54:00:12:34:56");
  CHECK(refusal("/interfaces/0/mtu", "67") == "interfaces[0].mtu: expected a whole number from 68 to 65535");
  CHECK(refusal("/interfaces/0/mtu", "-1") == "interfaces[0].mtu: expected a whole number from 68 to 65535");
  CHECK(refusal("/interfaces/0/addresses/0/address", R"("10.0.0")") ==
        "interfaces[0].addresses[0].address: expected an IPv4 or IPv6 address");
  CHECK(refusal("/interfaces/0/addresses/0/prefix", "33") ==
        "interfaces[0].addresses[0].prefix: expected a whole number from 0 to 32");
  CHECK(refusal("/interfaces/0/addresses/0/broadcast", R"("::1")") ==
        "interfaces[0].addresses[0].broadcast: expected an address of the same kind");
  CHECK(refusal("/routes/0/family", "5") == "routes[0].family: expected 4 or 6");
  CHECK(refusal("/routes/1/destination", R"("10.0.0.0/33")") ==
        "routes[1].destination: expected \"default\" or a network of its family, like 10.0.0.0/8");
  CHECK(refusal("/routes/1/destination", R"("10.0.0.0/")") ==
        "routes[1].destination: expected \"default\" or a network of its family, like 10.0.0.0/8");
  CHECK(refusal("/routes/1/destination", R"("fd00::/8")") ==
        "routes[1].destination: expected \"default\" or a network of its family, like 10.0.0.0/8");
  CHECK(refusal("/routes/0/device", "null") == "routes[0].device: expected a string without NUL");
  CHECK(refusal("/routes/1/source", R"("::1")") ==
        "routes[1].source: expected an address of the route's family");
  CHECK(refusal("/routes/3/type", R"("nat")") ==
        "routes[3].type: expected \"unicast\", \"blackhole\", \"unreachable\" or \"prohibit\"");
  CHECK(refusal("/neighbours/0/mac", R"("x")") ==
        "neighbours[0].mac: expected six bytes like 52:54:00:12:34:56");
  CHECK(refusal("/resolver", R"({"address": "10.0.0.1", "port": 1023})") ==
        "resolver.address: expected an IPv4 address of the loopback");
  CHECK(refusal("/resolver", R"({"address": "127.0.0.11"})") == "resolver.port: expected a port of the host");
  CHECK(refusal("/resolver", R"({"address": "127.0.0.11", "port": 1023})") == "accepted");
  CHECK(refusal("/resolvConf", R"("a\u0000b")") == "resolvConf: expected a string without NUL");
}

TEST_CASE("netlink: attributes are padded, nested ones have the length of all that is in them") {
  const std::uint32_t fixed = 7;
  NetlinkMessage message(16, 0, fixed);
  message.nested(26, [&] { message.nested(10, [&] { message.attribute(8, std::string_view("\1", 1)); }); });
  const std::vector<std::uint8_t> attributes(message.bytes().begin() + 20, message.bytes().end());
  CHECK(attributes == std::vector<std::uint8_t>{16, 0, 26, 0, 12, 0, 10, 0, 5, 0, 8, 0, 1, 0, 0, 0});
}

TEST_CASE("netlink: an attribute is found, and what is cut off is not read") {
  const std::string bytes("\x05\0\x01\0a\0\0\0\x06\0\x03\0bc\0\0\x09\0\x04\0d\0\0\0", 24);
  CHECK(findAttribute(bytes, 1) == "a");
  CHECK(findAttribute(bytes, 3) == "bc");
  CHECK(findAttribute(bytes, 4).empty());
  CHECK(findAttribute(bytes, 2).empty());
}
