// What a commit relies on while other calls fail beside it.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "tests/storage/store_fixture.h"

namespace modelstore::storage {
namespace {

// Calls `after` after each buffered batch with pages of manifests.
class PageWatch final : public Catalog {
 public:
  PageWatch(std::unique_ptr<Catalog> catalog, std::function<void()> after)
      : catalog_(std::move(catalog)), after_(std::move(after)) {}

  absl::StatusOr<std::optional<std::string>> Get(Space space,
                                                 absl::string_view key) override {
    return catalog_->Get(space, key);
  }
  absl::Status Scan(
      Space space, const KeyRange& range,
      absl::FunctionRef<bool(absl::string_view, absl::string_view)> visit) override {
    return catalog_->Scan(space, range, visit);
  }
  absl::Status Write(const CatalogBatch& batch, Durability durability) override {
    const absl::Status status = catalog_->Write(batch, durability);
    const bool pages = std::any_of(
        batch.changes().begin(), batch.changes().end(),
        [](const CatalogBatch::Change& c) { return c.space == Space::kManifests; });
    if (status.ok() && pages && durability == Durability::kBuffered) after_();
    return status;
  }
  absl::Status Health() override { return catalog_->Health(); }
  absl::Status Reopen() override { return catalog_->Reopen(); }

 private:
  const std::unique_ptr<Catalog> catalog_;
  const std::function<void()> after_;
};

// Tensors whose manifest has `bytes` or more, with few bytes of their own.
TestContent LargeManifest(size_t bytes) {
  TestContent content;
  for (size_t t = 0; t * 500 < bytes; ++t) {
    content.push_back(Vector(absl::StrCat(std::string(500, 'k'), t), "bytes"));
  }
  return content;
}

TEST(CommitTest, PagesThatAReopeningLostAreWrittenAgain) {
  // One batch of pages, and several.
  for (const size_t manifest_bytes : {size_t{1} << 20, size_t{10} << 20}) {
    int batches = 1;
    for (int lost = 1; lost <= batches; ++lost) {
      SCOPED_TRACE(absl::StrCat(manifest_bytes, " bytes, batch ", lost));
      auto disk = std::make_shared<MemoryDisk>();
      Engine engine = OpenMemoryEngine(disk);
      int written = 0;
      // As another call's fault and the reopening after it.
      engine.catalog = std::make_unique<PageWatch>(std::move(engine.catalog), [&] {
        if (++written == lost) disk->LosePower();
      });
      auto store = CheckpointStore::Open(StoreFixture::SmallOptions(), std::move(engine));
      ASSERT_OK(store.status());
      ASSERT_OK(SaveOneShot(**store, RandomContent(1, 1, 100)).status());
      const TestContent content = LargeManifest(manifest_bytes);
      const auto saved = SaveOneShot(**store, content);
      ASSERT_OK(saved.status());
      const auto loaded = LoadAll(**store, saved->version());
      ASSERT_OK(loaded.status());
      EXPECT_EQ(*loaded, Expected(content));
      EXPECT_GT(written, lost) << "nothing was written again";
      if (lost == 1) batches = written - 1;
      // Nothing is left of the first attempt.
      ASSERT_OK((*store)->models().Delete("m", true, {}).status());
      ASSERT_OK((*store)->maintenance().CollectGarbage(false, nullptr).status());
      EXPECT_LT(disk->used_bytes(), 1000);
    }
  }
}

}  // namespace
}  // namespace modelstore::storage
