// Sources of bytes and what is made of them: compositions over tensors in several
// pieces and odd chunks, in any range; what is shared and what is computed.
#include <gmock/gmock.h>
#include <malloc.h>

#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "server/modify/lora_tensor.h"
#include "server/modify/repeat_source.h"
#include "server/modify/working_checkpoint.h"
#include "server/modify/write_out.h"
#include "tests/server/modify_harness.h"

namespace modelstore::server::modify {
namespace {

using ::testing::HasSubstr;

std::string Read(const TensorSource& source, int64_t begin, int64_t end) {
  std::string bytes;
  const absl::Status s = source.Visit(begin, end, [&](absl::string_view part) {
    bytes.append(part.data(), part.size());
    return absl::OkStatus();
  });
  EXPECT_TRUE(s.ok()) << s;
  return bytes;
}

class ModifySourcesTest : public ModifyTest {
 protected:
  static constexpr int64_t kRows = 30, kColumns = 10;

  // One tensor in three pieces of rows, each cut into chunks of its own size.
  ModifySourcesTest() : values_(RandomFloats(kRows * kColumns, 1)) {
    const std::string bytes = BytesOf(values_);
    v1::Tensor tensor;
    tensor.set_key("w");
    tensor.set_dtype(v1::DTYPE_FLOAT32);
    tensor.add_shape(kRows);
    tensor.add_shape(kColumns);
    tensor.set_role(v1::TENSOR_ROLE_PARAMETER);
    std::vector<v1::SaveCheckpointRequest> requests(2);
    int64_t row = 0;
    for (const auto& [rows, chunk] :
         std::vector<std::pair<int64_t, int64_t>>{{7, 44}, {3, 1000}, {20, 128}}) {
      const std::string part = bytes.substr(row * kColumns * 4, rows * kColumns * 4);
      TestTensor piece =
          MakeTensor("w", v1::DTYPE_FLOAT32, {rows, kColumns}, part, chunk);
      v1::Piece* out = tensor.add_pieces();
      *out = piece.tensor.pieces(0);
      out->add_offset(row);
      out->add_offset(0);
      out->add_size(rows);
      out->add_size(kColumns);
      for (const std::string& one : piece.chunks) AddChunk(&requests[0], one);
      row += rows;
    }
    requests[0].set_parent("models/m");
    requests[0].set_create_model(true);
    *requests[0].mutable_manifest()->add_tensors() = tensor;
    requests[1].set_finish(true);
    auto saved = harness_.Save(requests);
    EXPECT_TRUE(saved.ok()) << saved.status();
    auto read = harness_.store().reads().Open("m", 1);
    EXPECT_TRUE(read.ok()) << read.status();
    auto checkpoint = WorkingCheckpoint::Of(*read);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = std::make_unique<WorkingCheckpoint>(*std::move(checkpoint));
  }
  WorkingTensor& Weight() { return *checkpoint_->Find("model", "w"); }

  // Commits the working checkpoint, one chunk a step.
  absl::StatusOr<storage::records::CheckpointRecord> Commit() {
    WriteOut out(checkpoint_.get());
    storage::SaveRequest request;
    request.model_id = "m";
    auto save = harness_.store().saves().StartDerived(request, out.sources());
    if (!save.ok()) return save.status();
    out.Begin(save->get());
    out.Work(absl::InfiniteFuture());
    EXPECT_TRUE(out.done());
    if (auto s = out.status(); !s.ok()) return s;
    EXPECT_EQ(out.done_bytes() > 0, out.total_bytes() > 0);
    return (*save)->Commit(out.Manifest(), std::nullopt);
  }

  const std::vector<float> values_;
  std::unique_ptr<WorkingCheckpoint> checkpoint_;
};

TEST_F(ModifySourcesTest, AnyRangeOfAStoredTensorIsReadOverPiecesAndChunks) {
  const std::string bytes = BytesOf(values_);
  const auto size = static_cast<int64_t>(bytes.size());
  ASSERT_EQ(Weight().source->size_bytes(), size);
  for (int64_t begin = 0; begin <= size; begin += 36) {
    for (int64_t end = begin; end <= size; end += 52) {
      ASSERT_EQ(Read(*Weight().source, begin, end), bytes.substr(begin, end - begin))
          << begin << " to " << end;
    }
  }
}

TEST_F(ModifySourcesTest, SourcesComposeInAnyRange) {
  const SourcePtr stored = Weight().source;
  const std::vector<float> more = RandomFloats(50, 2);
  // Rows 5 to 25 of the stored ones, then new ones, in float64, twice averaged.
  const SourcePtr rows =
      ConcatSource({RangeSource(stored, 5 * kColumns * 4, 25 * kColumns * 4),
                    RepeatBytesSource(BytesOf(more), 1)});
  const SourcePtr doubles = CastSource(rows, DType::kFloat32, DType::kFloat64);
  const SourcePtr average =
      AverageSource({doubles, doubles, doubles}, {0.25, 0.5, 0.75}, DType::kFloat64);
  std::vector<double> expected;
  for (int64_t i = 5 * kColumns; i < 25 * kColumns; ++i) expected.push_back(values_[i]);
  for (const float value : more) expected.push_back(value);
  for (double& value : expected) value = 0.25 * value + 0.5 * value + 0.75 * value;
  const std::string bytes = BytesOf(expected);
  ASSERT_EQ(average->size_bytes(), static_cast<int64_t>(bytes.size()));
  for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 2000}, {8, 16}, {792, 808}, {1592, 1608}, {1600, 2000}, {2000, 2000}}) {
    EXPECT_EQ(Read(*average, begin, end), bytes.substr(begin, end - begin)) << begin;
  }
  EXPECT_EQ(average->read_bytes(), 3 * 20 * kColumns * 4) << "what is new is not read";
}

TEST_F(ModifySourcesTest, RowsThatAreKeptWholeAreSharedAndOnlyNewOnesStored) {
  const std::string more = BytesOf(RandomFloats(2 * kColumns, 3));
  WorkingTensor& weight = Weight();
  weight.source = ConcatSource({weight.source, RepeatBytesSource(more, 1)});
  weight.shape[0] += 2;
  const auto made = Commit();
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->stored_bytes(), 2 * kColumns * 4);
  EXPECT_EQ(Bytes("models/m/checkpoints/2")["model:w"], BytesOf(values_) + more);
}

TEST_F(ModifySourcesTest, RowsInAnotherOrderAreComputed) {
  WorkingTensor& weight = Weight();
  const SourcePtr stored = weight.source;
  const int64_t row = kColumns * 4;
  weight.source = ConcatSource(
      {RangeSource(stored, 29 * row, 30 * row), RangeSource(stored, 0, 2 * row)});
  weight.shape[0] = 3;
  const auto made = Commit();
  ASSERT_TRUE(made.ok()) << made.status();
  const std::string bytes = BytesOf(values_);
  EXPECT_EQ(Bytes("models/m/checkpoints/2")["model:w"],
            bytes.substr(29 * row) + bytes.substr(0, 2 * row));
}

TEST_F(ModifySourcesTest, AReshapedTensorIsStoredAgain) {
  Weight().shape = {kRows * kColumns};
  const auto made = Commit();
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(Bytes("models/m/checkpoints/2")["model:w"], BytesOf(values_));
  EXPECT_EQ(TensorOf("models/m/checkpoints/2", "w").shape_size(), 1);
}

TEST_F(ModifySourcesTest, AnErrorOfASourceEndsTheWorkWithIt) {
  class Broken final : public TensorSource {
   public:
    int64_t size_bytes() const override { return int64_t{4} << 20; }
    int64_t read_bytes() const override { return 0; }

   protected:
    absl::Status DoVisit(int64_t begin, int64_t end, BytesCallback take) const override {
      if (begin > 0) return absl::DataLossError("gone");
      return take(std::string(end, 'x'));
    }
  };
  Weight().source = std::make_shared<Broken>();
  Weight().shape = {1 << 20};
  const auto made = Commit();
  EXPECT_EQ(made.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(LatestVersion(), 1);
}

TEST_F(ModifySourcesTest, ASourceThatIsAskedBeyondItsEndIsAnErrorAndNoLoop) {
  const SourcePtr stored = Weight().source;
  const auto take = [](absl::string_view) { return absl::OkStatus(); };
  const int64_t size = stored->size_bytes();
  for (const SourcePtr& source :
       {stored, RangeSource(stored, 4, 8),
        CastSource(stored, DType::kFloat32, DType::kFloat16),
        ConcatSource({stored, stored}), RepeatBytesSource("abcd", 1),
        AverageSource({stored, stored}, {0.5, 0.5}, DType::kFloat32),
        *RepeatSource(DType::kFloat32, 1, 3)}) {
    const int64_t end = source->size_bytes();
    EXPECT_TRUE(source->Visit(end, end, take).ok());
    EXPECT_EQ(source->Visit(0, end + 4, take).code(), absl::StatusCode::kInternal);
    EXPECT_EQ(source->Visit(end, end + 4, take).code(), absl::StatusCode::kInternal);
    EXPECT_EQ(source->Visit(-4, end, take).code(), absl::StatusCode::kInternal);
    EXPECT_EQ(source->Visit(4, 0, take).code(), absl::StatusCode::kInternal);
  }
  EXPECT_EQ(RangeSource(stored, size - 4, size + 4)->Visit(0, 8, take).code(),
            absl::StatusCode::kInternal)
      << "a range of what the other has not";
}

TEST_F(ModifySourcesTest, IntegersAreFilledWithNothingThatTheyCannotHold) {
  EXPECT_TRUE(RepeatSource(DType::kInt64, 1, 3).ok());
  EXPECT_TRUE(RepeatSource(DType::kBool, 0, 3).ok());
  for (const double value : {0.5, 2.0, -1.0, std::nan("")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(RepeatSource(DType::kInt64, value, 3).status()))
        << value;
  }
}

TEST_F(ModifySourcesTest, ATensorThatIsNotAsLongAsItsShapeIsNeverStored) {
  Weight().source = RangeSource(Weight().source, 0, 40);
  WriteOut out(checkpoint_.get());
  EXPECT_EQ(out.CheckPlan().code(), absl::StatusCode::kInternal);
}

TEST_F(ModifySourcesTest, MoreWorkThanOneCallMayDoIsRefusedWithBothFigures) {
  Weight().source = *RepeatSource(DType::kFloat32, 0, int64_t{1} << 41);
  Weight().shape = {int64_t{1} << 41};
  WriteOut out(checkpoint_.get());
  const absl::Status plan = out.CheckPlan();
  EXPECT_EQ(plan.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(plan.message()),
              HasSubstr("8796093022208 bytes, of at most 4398046511104"));
}

TEST_F(ModifySourcesTest, ARowOverAndOverIsReadFromAnyPlaceInIt) {
  const SourcePtr rows = RepeatBytesSource("abcdef", 100'000);
  EXPECT_EQ(Read(*rows, 4, 16), "efabcdefabcd");
  EXPECT_EQ(Read(*rows, 599'997, 600'000), "def");
  EXPECT_EQ(Read(*rows, 0, 600'000).size(), 600'000u);
}

TEST_F(ModifySourcesTest, ARowOverAndOverTakesMemoryOnlyWhileItIsRead) {
  std::vector<SourcePtr> sources;
  const size_t before = mallinfo2().uordblks;
  for (int i = 0; i < 1000; ++i) {
    sources.push_back(*RepeatSource(DType::kFloat32, 0, int64_t{1} << 30));
  }
  EXPECT_LT(mallinfo2().uordblks - before, size_t{1} << 20);
  EXPECT_EQ(sources[0]->working_bytes(), (64 << 10) + 4);
}

TEST_F(ModifySourcesTest, FactorsOfAdaptersThatAreReadInPartAreHeldUpToABound) {
  constexpr int64_t kElements = kMaxLoraElements;
  const auto factors = std::make_shared<LoraFactors>();
  const SourcePtr row = *RepeatSource(DType::kFloat32, 1, kElements);
  const SourcePtr two = *RepeatSource(DType::kFloat32, 1, 1);
  std::vector<SourcePtr> merged;
  for (int i = 0; i < 5; ++i) {
    merged.push_back(LoraSource(row, DType::kFloat32,
                                {row, DType::kFloat32, 1, kElements},
                                {two, DType::kFloat32, 1, 1}, i, factors));
  }
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < merged.size(); ++i) {
      EXPECT_EQ(ValuesOf<float>(Read(*merged[i], 4, 8)),
                std::vector<float>{1 + static_cast<float>(i)});
      EXPECT_LE(factors->held_bytes(), LoraFactors::kMaxBytes);
    }
  }
  EXPECT_EQ(factors->held_bytes(), LoraFactors::kMaxBytes);
  // Far below the default memory budget, however many adapters there are.
  int64_t room = 0;
  for (int i = 0; i < 300; ++i) room += factors->ExpectGrowth(int64_t{512} << 10);
  EXPECT_EQ(room, int64_t{32} << 20);
}

TEST_F(ModifySourcesTest, AfterItsTimeItTakesNoFurtherChunk) {
  Weight().source = CastSource(Weight().source, DType::kFloat32, DType::kFloat64);
  Weight().dtype = DType::kFloat64;
  WriteOut out(checkpoint_.get());
  out.Begin(nullptr);
  out.Work(absl::InfinitePast());
  EXPECT_FALSE(out.done());
  EXPECT_EQ(out.done_bytes(), 0);
  out.Work(absl::InfiniteFuture());
  EXPECT_TRUE(out.done());
  EXPECT_TRUE(out.status().ok()) << out.status();
  EXPECT_GT(out.done_bytes(), 0);
}

}  // namespace
}  // namespace modelstore::server::modify
