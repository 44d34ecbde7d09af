#include <arpa/inet.h>
#include <net/if.h>

#include <algorithm>

#include "error.h"
#include "network.h"

namespace tsvmm::agent {

namespace {

/// More than a machine has devices for.
constexpr std::size_t kMaxInterfaces = 64;
constexpr std::size_t kMaxAddresses = 1024;
constexpr std::size_t kMaxEntries = 65536;
/// resolv.conf(5) knows of no limit; this is a file of a person.
constexpr std::size_t kMaxResolvConf = 64 << 10;
/// RTPROT_STATIC (linux/rtnetlink.h).
constexpr std::uint64_t kProtocolStatic = 4;
/// What an interface can have at all (linux/if_ether.h: ETH_MIN_MTU, ETH_MAX_MTU).
constexpr std::uint64_t kLeastMtu = 68;
constexpr std::uint64_t kMostMtu = 65535;

[[noreturn]] void refuse(const std::string& field, const std::string& expected) {
  throw ParamsError(field + ": expected " + expected);
}

/// One object of the parameters, which knows its name for errors.
class Fields {
 public:
  Fields(const Json& object, std::string name) : object_(object), name_(std::move(name)) {
    if (!object_.is_object()) {
      refuse(name_.empty() ? "params" : name_, "an object");
    }
  }

  std::string field(const char* key) const { return name_.empty() ? key : name_ + "." + key; }

  const Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() ? nullptr : &*it;
  }

  /// Empty where it is absent.
  std::string text(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) {
      return "";
    }
    if (!value->is_string() || value->get_ref<const std::string&>().find('\0') != std::string::npos) {
      refuse(field(key), "a string without NUL");
    }
    return value->get<std::string>();
  }

  std::optional<std::uint64_t> number(const char* key, std::uint64_t least, std::uint64_t most) const {
    const Json* value = find(key);
    if (value == nullptr) {
      return std::nullopt;
    }
    if (!value->is_number_unsigned() || value->get<std::uint64_t>() < least ||
        value->get<std::uint64_t>() > most) {
      refuse(field(key), "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
    }
    return value->get<std::uint64_t>();
  }

  std::uint8_t byte(const char* key) const {
    return static_cast<std::uint8_t>(number(key, 0, 255).value_or(0));
  }

  bool flag(const char* key, bool otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) {
      return otherwise;
    }
    if (!value->is_boolean()) {
      refuse(field(key), "true or false");
    }
    return value->get<bool>();
  }

  /// Calls `read` with each element of an array, which is empty where it is absent.
  template <typename Read>
  void each(const char* key, std::size_t most, Read read) const {
    const Json* value = find(key);
    if (value == nullptr) {
      return;
    }
    if (!value->is_array() || value->size() > most) {
      refuse(field(key), "an array of at most " + std::to_string(most) + " elements");
    }
    for (std::size_t i = 0; i < value->size(); i++) {
      read(Fields((*value)[i], field(key) + "[" + std::to_string(i) + "]"));
    }
  }

 private:
  const Json& object_;
  const std::string name_;
};

bool isAddress(int family, const std::string& text) {
  std::uint8_t bytes[sizeof(in6_addr)];
  return inet_pton(family, text.c_str(), bytes) == 1;
}

bool isAddress(const std::string& text) { return isAddress(AF_INET, text) || isAddress(AF_INET6, text); }

/// An address, or nothing where it may be absent.
std::string address(const Fields& fields, const char* key, bool required) {
  std::string text = fields.text(key);
  if (text.empty() ? required : !isAddress(text)) {
    refuse(fields.field(key), "an IPv4 or IPv6 address");
  }
  return text;
}

std::string macAddress(const Fields& fields) {
  std::string text = fields.text("mac");
  bool good = text.size() == 17;
  for (std::size_t i = 0; good && i < text.size(); i++) {
    const char c = text[i];
    const bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    good = i % 3 == 2 ? c == ':' : digit;
  }
  if (!good) {
    refuse(fields.field("mac"), "six bytes like 52:54:00:12:34:56");
  }
  return text;
}

std::string interfaceName(const Fields& fields, const char* key) {
  std::string name = fields.text(key);
  const bool good = !name.empty() && name.size() < IFNAMSIZ && name != "." && name != ".." &&
                    name.find_first_of("/: %\t\n\v\f\r") == std::string::npos;
  if (!good) {
    refuse(fields.field(key), "an interface's name of 1 to 15 bytes");
  }
  return name;
}

std::uint8_t prefixOf(const Fields& fields, const std::string& text) {
  return static_cast<std::uint8_t>(
      fields.number("prefix", 0, isAddress(AF_INET, text) ? 32 : 128).value_or(0));
}

Interface parseInterface(const Fields& fields) {
  Interface result;
  result.name = interfaceName(fields, "name");
  result.mac = macAddress(fields);
  result.mtu = static_cast<std::uint32_t>(fields.number("mtu", kLeastMtu, kMostMtu).value_or(0));
  result.arp = fields.flag("arp", true);
  fields.each("addresses", kMaxAddresses, [&](const Fields& entry) {
    InterfaceAddress item;
    item.address = address(entry, "address", true);
    item.prefix = prefixOf(entry, item.address);
    item.broadcast = address(entry, "broadcast", false);
    item.peer = address(entry, "peer", false);
    for (const std::string* other : {&item.broadcast, &item.peer}) {
      if (!other->empty() && isAddress(AF_INET, *other) != isAddress(AF_INET, item.address)) {
        refuse(entry.field(other == &item.peer ? "peer" : "broadcast"), "an address of the same kind");
      }
    }
    item.scope = entry.byte("scope");
    result.addresses.push_back(std::move(item));
  });
  return result;
}

void parseDestination(const Fields& fields, Route& route) {
  const std::string text = fields.text("destination");
  if (text == "default") {
    return;
  }
  const std::size_t slash = text.find('/');
  route.destination = text.substr(0, slash);
  const int most = route.family == AF_INET ? 32 : 128;
  const std::string digits = slash == std::string::npos ? "" : text.substr(slash + 1);
  const bool number =
      !digits.empty() && digits.size() <= 3 && digits.find_first_not_of("0123456789") == std::string::npos;
  if (!isAddress(route.family, route.destination) || !number || std::stoi(digits) > most) {
    refuse(fields.field("destination"), "\"default\" or a network of its family, like 10.0.0.0/8");
  }
  route.prefix = static_cast<std::uint8_t>(std::stoi(digits));
}

Route::Type routeType(const Fields& fields) {
  const std::string text = fields.text("type");
  if (text.empty() || text == "unicast") {
    return Route::Type::kUnicast;
  }
  if (text == "blackhole") {
    return Route::Type::kBlackhole;
  }
  if (text == "unreachable") {
    return Route::Type::kUnreachable;
  }
  if (text != "prohibit") {
    refuse(fields.field("type"), "\"unicast\", \"blackhole\", \"unreachable\" or \"prohibit\"");
  }
  return Route::Type::kProhibit;
}

Route parseRoute(const Fields& fields) {
  Route route;
  const std::uint64_t family = fields.number("family", 4, 6).value_or(0);
  if (family != 4 && family != 6) {
    refuse(fields.field("family"), "4 or 6");
  }
  route.family = family == 4 ? AF_INET : AF_INET6;
  parseDestination(fields, route);
  route.type = routeType(fields);
  route.gateway = address(fields, "gateway", false);
  if (route.type == Route::Type::kUnicast) {
    route.device = interfaceName(fields, "device");
  }
  route.source = fields.text("source");
  if (!route.source.empty() && !isAddress(route.family, route.source)) {
    refuse(fields.field("source"), "an address of the route's family");
  }
  const auto small = [&](const char* key) -> std::optional<std::uint32_t> {
    const auto value = fields.number(key, 0, 0xffffffff);
    return value ? std::optional(static_cast<std::uint32_t>(*value)) : std::nullopt;
  };
  route.metric = small("metric");
  route.mtu = small("mtu");
  route.scope = fields.byte("scope");
  route.protocol = static_cast<std::uint8_t>(fields.number("protocol", 0, 255).value_or(kProtocolStatic));
  route.onlink = fields.flag("onlink", false);
  return route;
}

ResolverParams parseResolver(const Fields& fields) {
  ResolverParams result;
  result.address = fields.text("address");
  if (!isAddress(AF_INET, result.address) || result.address.rfind("127.", 0) != 0) {
    refuse(fields.field("address"), "an IPv4 address of the loopback");
  }
  const auto port = fields.number("port", 1, 0xfffffffe);
  if (!port) {
    refuse(fields.field("port"), "a port of the host");
  }
  result.port = static_cast<std::uint32_t>(*port);
  return result;
}

}  // namespace

NetworkParams parseNetworkParams(const Json& params) {
  NetworkParams result;
  const Fields fields(params, "");
  fields.each("interfaces", kMaxInterfaces,
              [&](const Fields& entry) { result.interfaces.push_back(parseInterface(entry)); });
  fields.each("routes", kMaxEntries,
              [&](const Fields& entry) { result.routes.push_back(parseRoute(entry)); });
  fields.each("neighbours", kMaxEntries, [&](const Fields& entry) {
    result.neighbours.push_back(
        {address(entry, "address", true), macAddress(entry), interfaceName(entry, "device")});
  });
  if (fields.find("resolvConf") != nullptr) {
    result.resolvConf = fields.text("resolvConf");
    if (result.resolvConf->size() > kMaxResolvConf) {
      refuse("resolvConf", "at most " + std::to_string(kMaxResolvConf) + " bytes");
    }
  }
  if (const Json* resolver = fields.find("resolver"); resolver != nullptr) {
    result.resolver = parseResolver(Fields(*resolver, "resolver"));
  }
  return result;
}

void orderRoutes(std::vector<Route>& routes) {
  const auto step = [](const Route& route) { return route.gateway.empty() ? 0 : route.onlink ? 1 : 2; };
  std::stable_sort(routes.begin(), routes.end(),
                   [&](const Route& a, const Route& b) { return step(a) < step(b); });
}

}  // namespace tsvmm::agent
