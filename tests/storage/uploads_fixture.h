// A store with a model `m` and what tests of its uploads do.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/storage/store_fixture.h"

namespace modelstore::storage {

class UploadsTest : public ::testing::Test {
 protected:
  Uploads& uploads() { return fixture_.store().uploads(); }

  std::string Create(const SaveOptions& options = {}, uint32_t contributions = 1) {
    const auto upload = uploads().Create(RequestOf(options), contributions, {});
    EXPECT_OK(upload.status());
    return upload.ok() ? upload->upload_id() : "";
  }
  absl::Status Send(const std::string& id, const std::vector<std::string>& chunks) {
    auto sink = NamedUpload(uploads(), "m", id).OpenSink();
    if (!sink.ok()) return sink.status();
    return PutAll(**sink, chunks);
  }
  absl::Status Describe(const std::string& id, uint32_t contribution,
                        const TestContent& content) {
    return NamedUpload(uploads(), "m", id)
        .AddManifest(contribution, PartOf(content), true, true);
  }
  std::vector<uint32_t> Missing(const std::string& id,
                                const std::vector<std::string>& chunks) {
    const auto missing = NamedUpload(uploads(), "m", id).FindMissing(DigestsOf(chunks));
    EXPECT_OK(missing.status());
    return *missing;
  }

  StoreFixture fixture_;
};

}  // namespace modelstore::storage
