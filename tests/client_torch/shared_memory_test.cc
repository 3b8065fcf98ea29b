// Loads into tensors that share memory, with themselves or with each other: the values
// are those stored, or the load is refused before a byte is touched.
#include <gmock/gmock.h>
#include <sys/mman.h>

#include <chrono>

#include "client/torch/memory_overlap.h"
#include "modelstore/connection.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::Bag;
using support::ServerFixture;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

class SharedMemoryTest : public ::testing::Test {
 protected:
  void Save(const StateDict& stored) {
    auto saved = SaveCheckpoint(fixture_.client(), "models/m", {.state_dict = &stored});
    ASSERT_TRUE(saved.ok()) << saved.status();
  }
  LoadResult Load(const StateDict& targets, Policy policy = Policy::kFail) {
    Bag bag(targets);
    return LoadCheckpoint(fixture_.client(), support::kLatest,
                          {.module = bag.get(), .shared_memory = policy});
  }
  ServerFixture fixture_;
};

TEST_F(SharedMemoryTest, ATargetThatOverlapsItselfIsRefusedByName) {
  const std::pair<const char*, torch::Tensor> targets[] = {
      {"unfold", torch::zeros({6}).unfold(0, 3, 1)},
      {"as_strided", torch::zeros({20}).as_strided({4, 3}, {1, 1})},
      {"as_strided with a gap", torch::zeros({40}).as_strided({3, 3}, {4, 2})},
      {"expand", torch::zeros({3}).expand({2, 3})},
      {"expand of a slice", torch::zeros({4, 1}).slice(0, 0, 2).expand({2, 3})}};
  for (const auto& [name, target] : targets) {
    SCOPED_TRACE(name);
    Save({{"a", torch::ones({3})},
          {"b", torch::arange(target.numel(), torch::kFloat).view(target.sizes())}});
    const torch::Tensor a = torch::zeros({3});
    const LoadResult result = Load({{"a", a}, {"b", target}});
    EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(result.status.message()),
                HasSubstr("tensor `b` of the module has elements that share memory"));
    EXPECT_TRUE(a.eq(0).all().item<bool>());
    EXPECT_TRUE(target.eq(0).all().item<bool>());
  }
}

TEST_F(SharedMemoryTest, StridesThatMerelyInterleaveAreLoaded) {
  const torch::Tensor targets[] = {
      torch::zeros({12}).as_strided({2, 3}, {3, 2}),  // 0 2 4, 3 5 7
      torch::zeros({6}).unfold(0, 2, 2),
      torch::zeros({4, 6}).slice(1, 0, 6, 2).slice(0, 0, 4, 2), torch::zeros({2, 3}).t()};
  for (const torch::Tensor& target : targets) {
    const torch::Tensor value =
        torch::arange(1, target.numel() + 1, torch::kFloat).view(target.sizes());
    Save({{"a", value}});
    const LoadResult result = Load({{"a", target}});
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_TRUE(target.equal(value));
  }
}

TEST_F(SharedMemoryTest, TiedNamesWithDifferentValuesAreRefusedOrTheLastWins) {
  Save({{"a", torch::full({5}, 1.0)}, {"b", torch::full({5}, 2.0)}});
  const torch::Tensor shared = torch::zeros({5});
  const StateDict targets = {{"a", shared}, {"b", shared}};
  const LoadResult refused = Load(targets);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("`a` and `b`"));
  EXPECT_TRUE(shared.eq(0).all().item<bool>());
  EXPECT_EQ(shared._version(), 0);
  const LoadResult told = Load(targets, Policy::kReport);
  ASSERT_TRUE(told.status.ok()) << told.status;
  EXPECT_THAT(told.report.overwritten, ElementsAre(Pair("a", "b")));
  EXPECT_TRUE(shared.eq(2).all().item<bool>());
  const LoadResult ignored = Load(targets, Policy::kIgnore);
  ASSERT_TRUE(ignored.status.ok()) << ignored.status;
  EXPECT_THAT(ignored.report.overwritten, IsEmpty());
  EXPECT_TRUE(shared.eq(2).all().item<bool>());
}

TEST_F(SharedMemoryTest, TiedNamesStoredTwiceWithOneValueAreLoaded) {
  const torch::Tensor value = torch::rand({2000, 700});  // two chunks
  Save({{"a", value}, {"b", value.clone()}, {"c", value.to(torch::kDouble)}});
  const torch::Tensor shared = torch::zeros({2000, 700});
  const LoadResult result = Load({{"a", shared}, {"b", shared}, {"c", shared}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(shared.equal(value));
  EXPECT_THAT(result.report.overwritten, IsEmpty());
}

TEST_F(SharedMemoryTest, ViewsThatOverlapInPartAreLoadedIfTheirValuesAgree) {
  const torch::Tensor value = torch::arange(12, torch::kFloat).view({3, 4});
  const auto views = [](const torch::Tensor& whole) {
    return StateDict{{"whole", whole},
                     {"row", whole.select(0, 1)},
                     {"column", whole.select(1, 2)},
                     {"other", torch::ones({2})}};
  };
  Save(views(value));
  const torch::Tensor whole = torch::zeros({3, 4});
  const LoadResult agreed = Load(views(whole));
  ASSERT_TRUE(agreed.status.ok()) << agreed.status;
  EXPECT_TRUE(whole.equal(value));

  StateDict odd = views(value.clone());
  odd[2].second = torch::full({3}, -1.0);
  Save(odd);
  StateDict targets = views(torch::zeros({3, 4}));
  targets[3].second = torch::zeros({2});
  const LoadResult refused = Load(targets);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("`column`"));
  for (const auto& [key, target] : targets) {
    EXPECT_TRUE(target.eq(0).all().item<bool>()) << key << " was touched";
  }
  const LoadResult told = Load(targets, Policy::kReport);
  ASSERT_TRUE(told.status.ok()) << told.status;
  EXPECT_THAT(told.report.overwritten,
              ElementsAre(Pair("whole", "column"), Pair("row", "column")));
  torch::Tensor expected = value.clone();
  expected.select(1, 2).fill_(-1);
  EXPECT_TRUE(targets[0].second.equal(expected));
}

TEST_F(SharedMemoryTest, AThousandViewsThatDoNotShareAreLoadedAtOnce) {
  constexpr int64_t kViews = 1000;
  const auto views = [](const torch::Tensor& whole) {
    StateDict columns;
    for (int64_t i = 0; i < kViews; ++i) {
      columns.emplace_back("c" + std::to_string(i), whole.select(1, i));
    }
    return columns;
  };
  const torch::Tensor value = torch::rand({kViews, kViews});
  Save(views(value));
  const torch::Tensor whole = torch::zeros({kViews, kViews});
  const auto start = std::chrono::steady_clock::now();
  const LoadResult result = Load(views(whole));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(whole.equal(value));
}

TEST_F(SharedMemoryTest, OfValuesThatDoNotStayOnlyTheLastIsCompared) {
  Save({{"a", torch::full({6}, 1.0)},
        {"b", torch::full({6}, 2.0)},
        {"part", torch::full({3}, 2.0)}});
  const torch::Tensor shared = torch::zeros({6});
  const LoadResult told = Load(
      {{"a", shared}, {"b", shared}, {"part", shared.slice(0, 0, 3)}}, Policy::kReport);
  ASSERT_TRUE(told.status.ok()) << told.status;
  EXPECT_THAT(told.report.overwritten, ElementsAre(Pair("a", "b")));
  EXPECT_TRUE(shared.eq(2).all().item<bool>());
}

// Addresses of which hardly any are backed by memory.
class Untouched {
 public:
  explicit Untouched(int64_t bytes)
      : bytes_(bytes),
        data_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    EXPECT_NE(data_, MAP_FAILED);
  }
  Untouched(const Untouched&) = delete;
  Untouched& operator=(const Untouched&) = delete;
  ~Untouched() { ::munmap(data_, bytes_); }

  int64_t bytes() const { return bytes_; }
  torch::Tensor View(int64_t begin, const std::vector<int64_t>& shape,
                     const std::vector<int64_t>& strides,
                     torch::ScalarType type = torch::kFloat) const {
    return torch::from_blob(static_cast<char*>(data_) + begin, shape, strides, type);
  }

 private:
  const int64_t bytes_;
  void* const data_;
};

TEST(AnyShareTest, ViewsFarApartThatInterleaveDoNotShare) {
  const Untouched memory(int64_t{3} << 30);
  const int64_t stride = memory.bytes() / 4 - 4;
  const auto at = [&](int64_t first) { return memory.View(first * 4, {2}, {stride}); };
  const auto any_share = [](const std::vector<torch::Tensor>& tensors) {
    const absl::StatusOr<bool> share = torch_internal::AnyShare(tensors);
    EXPECT_TRUE(share.ok()) << share.status();
    return share.ok() && *share;
  };
  EXPECT_FALSE(any_share({at(0), at(1), at(2)}));
  EXPECT_TRUE(any_share({at(0), at(2), at(0)}));
  // The second element of at(1).
  const torch::Tensor last = memory.View((1 + stride) * 4, {1}, {1});
  EXPECT_FALSE(any_share({at(0), at(2), last}));
  EXPECT_TRUE(any_share({at(0), at(1), last}));
  // A half of an element.
  EXPECT_TRUE(any_share({at(0), at(1), memory.View(6, {1}, {1}, torch::kHalf)}));
  EXPECT_FALSE(any_share({at(0), torch::empty({0}), at(1)}));
  EXPECT_FALSE(any_share({}));
}

TEST_F(SharedMemoryTest, AComparisonThatTakesTooMuchMemoryIsRefused) {
  const Untouched memory(int64_t{1} << 40);
  const torch::Tensor far = memory.View(0, {2}, {memory.bytes() / 4 - 1});
  Save({{"far", torch::ones({2})}, {"near", torch::ones({1})}});
  const LoadResult result = Load({{"far", far}, {"near", memory.View(0, {1}, {1})}});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(result.status.message()),
              HasSubstr("the load needs 1099511627800 bytes of memory"));
  EXPECT_TRUE(far.eq(0).all().item<bool>());
}

// A tensor may have more digests than an answer holds.
class NoDigests : public Connection {
 public:
  explicit NoDigests(Connection& to) : to_(to) {}
  absl::StatusOr<std::string> Call(std::string_view method, std::string request,
                                   Deadline deadline) override {
    if (method == "/modelstore.v1.ModelStore/ListTensors") {
      ++refused_;
      return absl::OutOfRangeError("more digests than an answer of 4 MiB holds");
    }
    return to_.Call(method, std::move(request), deadline);
  }
  absl::StatusOr<std::unique_ptr<Stream>> Open(std::string_view method, int lane,
                                               Deadline deadline) override {
    return to_.Open(method, lane, deadline);
  }
  const ConnectOptions& options() const override { return to_.options(); }
  int refused() const { return refused_; }

 private:
  Connection& to_;
  int refused_ = 0;
};

TEST_F(SharedMemoryTest, WithoutDigestsTiedNamesAreComparedAfterTheyArrive) {
  const auto connection = std::make_shared<NoDigests>(fixture_.connection());
  Client client(connection);
  const torch::Tensor value = torch::rand({5});
  const torch::Tensor shared = torch::zeros({5});
  Bag bag(StateDict{{"a", shared}, {"b", shared}});
  Save({{"a", value}, {"b", value.clone()}});
  const LoadResult same = LoadCheckpoint(client, support::kLatest, {.module = bag.get()});
  ASSERT_TRUE(same.status.ok()) << same.status;
  EXPECT_EQ(connection->refused(), 1);
  EXPECT_TRUE(shared.equal(value));
  Save({{"a", value}, {"b", value + 1}});
  const LoadResult other =
      LoadCheckpoint(client, support::kLatest, {.module = bag.get()});
  EXPECT_EQ(other.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.status.message()), HasSubstr("`a` and `b`"));
  EXPECT_TRUE(shared.equal(value));
}

// As recurrent modules keep theirs: one memory, and no byte in two of them.
TEST_F(SharedMemoryTest, PartsOfOneStorageThatDoNotTouchAreLoadedInPlace) {
  Save({{"even", torch::full({4}, 1.0)}, {"odd", torch::full({4}, 2.0)}});
  const torch::Tensor flat = torch::zeros({8});
  const LoadResult result =
      Load({{"even", flat.slice(0, 0, 8, 2)}, {"odd", flat.slice(0, 1, 8, 2)}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(flat.equal(torch::tensor({1.f, 2.f, 1.f, 2.f, 1.f, 2.f, 1.f, 2.f})));
}

}  // namespace
}  // namespace modelstore
