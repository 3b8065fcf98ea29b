// One tensor beyond every 32-bit size: saved, loaded into a live module and fresh.
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

constexpr int64_t kElements = (int64_t{3} << 30) / 4 + 5;

// Every element differs from those 2^29 to 2^31 bytes away.
torch::Tensor Pattern() {
  torch::Tensor tensor = torch::empty({kElements}, torch::kInt);
  int32_t* data = tensor.data_ptr<int32_t>();
  for (int64_t i = 0; i < kElements; ++i) {
    data[i] = static_cast<int32_t>(i * 2654435761u + (i >> 20));
  }
  return tensor;
}

struct HolderImpl : torch::nn::Module {
  HolderImpl() { huge = register_buffer("huge", torch::zeros({kElements}, torch::kInt)); }
  torch::Tensor huge;
};
TORCH_MODULE(Holder);

TEST(LargeTest, ThreeGibibytesInOneTensorRoundTrip) {
  support::ServerFixture fixture;
  {
    const StateDict stored = {{"huge", Pattern()}};
    auto saved = SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored});
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(saved->logical_bytes, kElements * 4);
  }
  {
    Holder holder;
    LoadResult result = LoadCheckpoint(fixture.client(), "models/m/checkpoints/latest",
                                       {.module = holder.get()});
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_TRUE(holder->huge.equal(Pattern()));
  }
  LoadArgs args;
  StateDict loaded;
  args.state_dict = &loaded;
  LoadResult result =
      LoadCheckpoint(fixture.client(), "models/m/checkpoints/latest", args,
                     {.slices = {{"model:huge", kElements - 9, kElements}}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(loaded.at(0).second.equal(Pattern().slice(0, kElements - 9)));
}

}  // namespace
}  // namespace modelstore
