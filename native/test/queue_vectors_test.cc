#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "support/ring.h"
#include "virtio/device.h"
#include "virtio/queue.h"

using namespace tsvmm;
using namespace tsvmm::virtio;
using nlohmann::json;

namespace {

constexpr uint64_t kGiB = 1 << 30;
constexpr uint64_t kRam = 1 << 20;

uint64_t addressOf(const json& text) { return std::stoull(text.get<std::string>(), nullptr, 16); }

/// A queue and its rings as test/vectors/queue.json describes them.
class VectorQueue {
 public:
  explicit VectorQueue(const json& vector)
      : memory_({{0, kRam}, {4 * kGiB, kRam}},
                {.backing = GuestMemory::Backing::kAnonymous, .hugePages = false}) {
    const json rings = vector.value("rings", json{"0x1000", "0x2000", "0x3000"});
    config_ = {vector.value("size", uint16_t{8}), true, addressOf(rings[0]), addressOf(rings[1]),
               addressOf(rings[2])};
    uint64_t features = kFeatureVersion1;
    for (const std::string name : vector.value("features", json::array())) {
      features |= name == "indirect" ? kFeatureIndirect : kFeatureEventIndex;
    }
    const json table = vector.value("table", json::object());
    for (const auto& [index, descriptor] : table.items()) {
      writeDescriptor(config_.descriptors + 16 * std::stoul(index), descriptor);
    }
    const json tables = vector.value("at", json::object());
    for (const auto& [address, descriptors] : tables.items()) {
      uint64_t at = addressOf(json(address));
      for (const json& descriptor : descriptors) {
        writeDescriptor(at, descriptor);
        at += 16;
      }
    }
    const char* wrong = queue_.configure(memory_, config_, 256, features);
    configured_ = wrong == nullptr ? "" : wrong;
    if (vector.contains("state")) {
      const uint16_t available = vector["state"][0], used = vector["state"][1];
      queue_.setState({available, used});
      available_ = available;
      usedSeen_ = used;
    }
  }

  const std::string& configured() const { return configured_; }

  void step(const std::string& what, const json& argument) {
    if (what == "offer") {
      for (const uint16_t head : argument) {
        memory_.write(config_.available + 4 + 2u * (available_ % config_.size), head);
        memory_.write(config_.available + 2, ++available_);
      }
    } else if (what == "availableIndex") {
      available_ = argument;
      memory_.write(config_.available + 2, available_);
    } else if (what == "availableFlags") {
      memory_.write(config_.available, argument.get<uint16_t>());
    } else if (what == "usedEvent") {
      memory_.write(config_.available + 4 + 2u * config_.size, argument.get<uint16_t>());
    } else if (what == "pop") {
      CHECK(pop() == argument);
    } else if (what == "push") {
      queue_.push(argument[0].get<uint16_t>(), argument[1].get<uint32_t>());
    } else if (what == "interrupt") {
      CHECK(queue_.needsInterrupt() == argument.get<bool>());
    } else if (what == "disable") {
      queue_.disableNotifications();
    } else if (what == "enable") {
      CHECK(queue_.enableNotifications() == argument.get<bool>());
    } else if (what == "used") {
      CHECK(used() == argument);
    } else if (what == "usedFlags") {
      CHECK(memory_.read<uint16_t>(config_.used) == argument.get<uint16_t>());
    } else if (what == "availableEvent") {
      CHECK(memory_.read<uint16_t>(config_.used + 4 + 8u * config_.size) == argument.get<uint16_t>());
    } else if (what == "state") {
      CHECK(json{queue_.state().nextAvailable, queue_.state().nextUsed} == argument);
    } else {
      FAIL("no step " << what);
    }
  }

 private:
  void writeDescriptor(uint64_t at, const json& descriptor) {
    const std::string letters = descriptor[2];
    uint16_t flags = 0;
    for (const char letter : letters) {
      flags |= letter == 'N' ? 1 : letter == 'W' ? 2 : 4;
    }
    REQUIRE(memory_.write(at, addressOf(descriptor[0])));
    REQUIRE(memory_.write(at + 8, descriptor[1].get<uint32_t>()));
    REQUIRE(memory_.write(at + 12, flags));
    REQUIRE(memory_.write(at + 14, descriptor[3].get<uint16_t>()));
  }

  json buffers(const std::vector<GuestSlice>& slices) {
    json list = json::array();
    for (const GuestSlice& slice : slices) {
      for (const auto& region : memory_.regions()) {
        const auto offset = static_cast<uint64_t>(slice.unsafeData() - region.host);
        if (slice.unsafeData() >= region.host && offset < region.size) {
          char text[20];
          std::snprintf(text, sizeof text, "0x%lx", region.address + offset);
          list.push_back({text, slice.size()});
        }
      }
    }
    return list;
  }

  json pop() {
    Chain chain;
    switch (queue_.pop(chain)) {
      case Queue::Pop::kEmpty:
        return "empty";
      case Queue::Pop::kBroken:
        return queue_.brokenReason();
      case Queue::Pop::kChain:
        break;
    }
    return {chain.head(), buffers(chain.readable()), buffers(chain.writable())};
  }

  /// What has been used since the last look.
  json used() {
    json list = json::array();
    const uint16_t index = memory_.read<uint16_t>(config_.used + 2).value();
    for (; usedSeen_ != index; usedSeen_++) {
      const uint64_t at = config_.used + 4 + 8u * (usedSeen_ % config_.size);
      list.push_back({memory_.read<uint32_t>(at).value(), memory_.read<uint32_t>(at + 4).value()});
    }
    return list;
  }

  GuestMemory memory_;
  QueueConfig config_;
  Queue queue_;
  std::string configured_;
  uint16_t available_ = 0;
  uint16_t usedSeen_ = 0;
};

}  // namespace

TEST_CASE("queue: the vectors that its TypeScript twin passes too") {
  std::ifstream file(QUEUE_VECTORS);
  REQUIRE(file);
  const json vectors = json::parse(file);
  for (const json& vector : vectors["cases"]) {
    CAPTURE(vector["name"].get<std::string>());
    VectorQueue queue(vector);
    CHECK(queue.configured() == vector.value("configure", std::string()));
    for (const json& step : vector.value("steps", json::array())) {
      for (const auto& [what, argument] : step.items()) {
        queue.step(what, argument);
      }
    }
  }
}
