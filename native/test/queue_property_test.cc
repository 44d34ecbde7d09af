#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>

#include "support/ring.h"
#include "virtio/device.h"
#include "virtio/queue.h"

using namespace tsvmm;
using namespace tsvmm::virtio;
using tsvmm::test::DriverRing;
using tsvmm::test::GuestRam;

namespace {

/// What a virtqueue does, said as simply as can be: chains come out in the order in which they went in, what
/// is used comes back in that order, and an interrupt is due when the used index has passed what was asked
/// for. test/unit/virtio/queue-property.test.ts holds the TypeScript twin against the same model.
struct Model {
  struct Chain {
    uint16_t head;
    std::string readable;
    uint64_t writable;
  };
  std::deque<Chain> available;
  std::map<uint16_t, Chain> popped;
  std::deque<std::pair<uint16_t, uint32_t>> used;
  uint16_t usedIndex = 0, signalled = 0, event = 0;
  bool eventIndex = false, suppressed = false;

  bool interrupt() {
    bool passed = false;
    for (uint16_t index = signalled; index != usedIndex; index++) {
      passed = passed || (eventIndex ? index == event : !suppressed);
    }
    signalled = usedIndex;
    return passed;
  }
};

class Play {
 public:
  Play(uint32_t seed, uint16_t size, uint64_t features) : random_(seed), ring_(ram_, size) {
    REQUIRE(queue_.configure(ram_.memory, ring_.config(), size, features) == nullptr);
    model_.eventIndex = (features & kFeatureEventIndex) != 0;
    indirect_ = (features & kFeatureIndirect) != 0;
    // Where a queue has been for a while: the indexes wrap within the play.
    const auto start = static_cast<uint16_t>(random_());
    ring_.startAt(start);
    queue_.setState({start, start});
    model_.usedIndex = model_.signalled = start;
    area_ = ram_.alloc(kArea);
  }

  void step() {
    switch (below(8)) {
      case 0:
      case 1:
        return offer();
      case 2:
      case 3:
        return pop();
      case 4:
      case 5:
        return push();
      case 6:
        CHECK(queue_.needsInterrupt() == model_.interrupt());
        return;
      default:
        return ask();
    }
  }

  /// The driver sees just what the model has used.
  void drain() {
    while (const auto used = ring_.takeUsed()) {
      REQUIRE_FALSE(model_.used.empty());
      CHECK(used->head == model_.used.front().first);
      CHECK(used->length == model_.used.front().second);
      model_.used.pop_front();
    }
    CHECK(model_.used.empty());
  }

 private:
  static constexpr uint64_t kArea = 1 << 20;

  uint32_t below(uint32_t limit) { return random_() % limit; }

  void offer() {
    drain();
    const size_t free = ring_.freeDescriptors();
    if (free == 0) {
      return;
    }
    const bool indirect = indirect_ && below(2) == 0;
    const size_t count = 1 + below(static_cast<uint32_t>(indirect ? 6 : std::min<size_t>(free, 4)));
    const size_t readable = below(static_cast<uint32_t>(count + 1));
    std::vector<test::Buffer> buffers;
    Model::Chain chain{};
    for (size_t i = 0; i < count; i++) {
      const uint32_t length = below(4) == 0 ? 0 : 1 + below(3000);
      const uint64_t address = area_ + below(static_cast<uint32_t>(kArea - 3001));
      buffers.push_back({address, length, i >= readable});
      if (i >= readable) {
        chain.writable += length;
      }
    }
    for (size_t i = 0; i < readable; i++) {
      std::string bytes(buffers[i].length, '\0');
      std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<char>(random_()); });
      ram_.write(buffers[i].address, bytes.data(), bytes.size());
    }
    chain.head = indirect ? ring_.addIndirect(buffers) : ring_.add(buffers);
    // Buffers may overlap: what counts is what is there in the end.
    contents_[chain.head] = buffers;
    model_.available.push_back(chain);
  }

  void pop() {
    Chain chain;
    const Queue::Pop result = queue_.pop(chain);
    if (model_.available.empty()) {
      CHECK(result == Queue::Pop::kEmpty);
      return;
    }
    REQUIRE(result == Queue::Pop::kChain);
    Model::Chain expected = model_.available.front();
    for (const test::Buffer& buffer : contents_[expected.head]) {
      if (!buffer.writable) {
        expected.readable += ram_.read(buffer.address, buffer.length);
      }
    }
    CHECK(chain.head() == expected.head);
    CHECK(chain.writableSize() == expected.writable);
    REQUIRE(chain.readableSize() == expected.readable.size());
    std::string bytes(chain.readableSize(), '\0');
    CHECK(chain.read(bytes.data(), bytes.size()));
    CHECK(bytes == expected.readable);
    if (below(8) == 0) {
      queue_.undoPop();
      return;
    }
    model_.available.pop_front();
    model_.popped[chain.head()] = expected;
    chains_[chain.head()] = chain;
  }

  void push() {
    if (chains_.empty()) {
      return;
    }
    auto at = std::next(chains_.begin(), below(static_cast<uint32_t>(chains_.size())));
    Chain& chain = at->second;
    const auto length = static_cast<uint32_t>(
        chain.writableSize() == 0 ? 0 : below(static_cast<uint32_t>(chain.writableSize() + 1)));
    CHECK(chain.write(std::string(length, 'w').data(), length));
    queue_.push(chain);
    model_.used.emplace_back(chain.head(), length);
    model_.usedIndex++;
    model_.popped.erase(chain.head());
    chains_.erase(at);
    CHECK(queue_.inFlight() == chains_.size());
  }

  /// The driver says when it wants to be interrupted.
  void ask() {
    if (model_.eventIndex) {
      model_.event = static_cast<uint16_t>(model_.usedIndex + below(5) - 1);
      ring_.setUsedEvent(model_.event);
    } else {
      // The flag counts when the device looks, so what is due so far is settled first.
      CHECK(queue_.needsInterrupt() == model_.interrupt());
      model_.suppressed = below(2) == 0;
      ring_.setAvailableFlags(model_.suppressed ? 1 : 0);
    }
    CHECK(queue_.enableNotifications() == !model_.available.empty());
  }

  std::mt19937 random_;
  GuestRam ram_;
  DriverRing ring_;
  Queue queue_;
  Model model_;
  uint64_t area_ = 0;
  bool indirect_ = false;
  std::map<uint16_t, Chain> chains_;
  std::map<uint16_t, std::vector<test::Buffer>> contents_;
};

}  // namespace

TEST_CASE("queue: whatever a well-behaved driver does, it does as the model") {
  const uint64_t both = kFeatureIndirect | kFeatureEventIndex;
  uint32_t seed = 1;
  for (const uint16_t size : {1, 2, 8, 64, 256}) {
    for (const uint64_t features : {uint64_t{0}, kFeatureIndirect, kFeatureEventIndex, both}) {
      CAPTURE(size);
      CAPTURE(features);
      Play play(seed++, size, kFeatureVersion1 | features);
      for (int i = 0; i < 1500; i++) {
        play.step();
      }
      play.drain();
    }
  }
}
