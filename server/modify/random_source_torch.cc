// The module that random_source.cc loads. This is the server's only file that includes
// torch.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/modify/draws_module.h"
#include "server/modify/random_source.h"

namespace modelstore::server::modify {
namespace {

constexpr int64_t kElement = sizeof(float);
// Elements of a block, which is one chunk of float32. A multiple of 16, because normal_()
// of 16 or more elements works in groups of 16: blocks then give the same numbers as one
// draw of the whole tensor.
constexpr int64_t kBlock = kDrawBlockElements;

enum class Distribution : uint8_t { kUniform, kNormal };

// A distribution with its two arguments: low and high, or mean and standard deviation.
struct Draw {
  Distribution distribution;
  double a;
  double b;

  at::Tensor Of(int64_t elements, at::Generator& generator) const {
    at::Tensor numbers = at::empty({elements}, at::kFloat);
    if (distribution == Distribution::kUniform) {
      numbers.uniform_(a, b, generator);
    } else {
      numbers.normal_(a, b, generator);
    }
    return numbers;
  }
};

// Runs `work` and turns exceptions of torch into a status: none may leave the module.
template <typename Work>
absl::Status Guarded(Work work) {
  try {
    return work();
  } catch (const c10::Error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("torch: ", error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("no memory to draw numbers");
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("torch: ", error.what()));
  }
}

// Numbers that are drawn at each visit, block by block, from the state that the generator
// had before the block. A visit of a part of a block draws the whole block. Thread-safe:
// visits copy a state and change only the copy.
class RandomSource final : public TensorSource {
 public:
  RandomSource(int64_t elements, Draw draw, std::vector<at::Generator> states)
      : elements_(elements), draw_(draw), states_(std::move(states)) {}

  // The last block includes the remainder, so it has between one and two times kBlock
  // elements, or all elements. A shorter one could have fewer than 16, for which
  // normal_() draws in another way.
  static int64_t BlockCount(int64_t elements) {
    return std::max<int64_t>(1, elements / kBlock);
  }
  static int64_t BlockSize(int64_t elements, int64_t block) {
    const bool last = block + 1 == BlockCount(elements);
    return last ? elements - block * kBlock : kBlock;
  }

  int64_t size_bytes() const override { return elements_ * kElement; }
  int64_t read_bytes() const override { return 0; }
  // A visit draws one block.
  int64_t working_bytes() const override {
    return BlockSize(elements_, BlockCount(elements_) - 1) * kElement;
  }
  absl::Status DoVisit(int64_t begin, int64_t end, BytesCallback take) const override {
    const int64_t blocks = BlockCount(elements_);
    while (begin < end) {
      // The last block is longer than the others.
      const int64_t block = std::min(begin / (kBlock * kElement), blocks - 1);
      const int64_t first = block * kBlock * kElement;
      const int64_t size = BlockSize(elements_, block);
      const int64_t stop = std::min(end, first + size * kElement);
      const auto status = Guarded([&] {
        at::Generator generator = states_[block].clone();
        const at::Tensor numbers = draw_.Of(size, generator);
        const auto* bytes = reinterpret_cast<const char*>(numbers.data_ptr<float>());
        return take(absl::string_view(bytes + (begin - first), stop - begin));
      });
      if (!status.ok()) return status;
      begin = stop;
    }
    return absl::OkStatus();
  }

 private:
  const int64_t elements_;
  const Draw draw_;
  // State of the generator before each block.
  const std::vector<at::Generator> states_;
};

// Draws all numbers block by block, keeping the state before each block and discarding
// the numbers: this is what advances the generator.
absl::StatusOr<SourcePtr> DrawFrom(at::Generator& generator, int64_t elements, Draw draw,
                                   KeepGoing keep_going) {
  SourcePtr source;
  const auto status = Guarded([&] {
    std::vector<at::Generator> states;
    for (int64_t block = 0; block < RandomSource::BlockCount(elements); ++block) {
      if (auto s = keep_going(); !s.ok()) return s;
      states.push_back(generator.clone());
      draw.Of(RandomSource::BlockSize(elements, block), generator);
    }
    source = std::make_shared<RandomSource>(elements, draw, std::move(states));
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return source;
}

class TorchDraws final : public DrawsModule {
 public:
  explicit TorchDraws(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}

  absl::StatusOr<SourcePtr> Uniform(int64_t elements, double low, double high,
                                    KeepGoing keep_going) override {
    return DrawFrom(generator_, elements, {Distribution::kUniform, low, high},
                    keep_going);
  }
  absl::StatusOr<SourcePtr> Normal(int64_t elements, double mean, double std,
                                   KeepGoing keep_going) override {
    return DrawFrom(generator_, elements, {Distribution::kNormal, mean, std}, keep_going);
  }

 private:
  at::Generator generator_;
};

}  // namespace

extern "C" __attribute__((visibility("default"))) DrawsModule* ModelstoreMakeDrawsModule(
    uint64_t seed) {
  DrawsModule* draws = nullptr;
  const auto status = Guarded([&] {
    draws = new TorchDraws(seed);
    return absl::OkStatus();
  });
  return status.ok() ? draws : nullptr;
}

}  // namespace modelstore::server::modify
