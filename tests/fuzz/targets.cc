#include "tests/fuzz/targets.h"

#include <iterator>

#include "absl/strings/match.h"
#include "proto/contract/utf8.h"

namespace modelstore::fuzz {

const std::vector<Target>& Targets() {
  static const std::vector<Target> targets = [] {
    std::vector<Target> all;
    for (const auto& some : {ArchitectureTargets(), ChunkMessageTargets(), NameTargets(),
                             QueryTargets(), RecordTargets(), StoreFileTargets()}) {
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }();
  return targets;
}

void RequireRefusal(const absl::Status& status, absl::string_view prefix) {
  FUZZ_REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
  FUZZ_REQUIRE(absl::StartsWith(status.message(), prefix));
  FUZZ_REQUIRE(status.message().size() < 1000);
  FUZZ_REQUIRE(IsUtf8(status.message()));
}

}  // namespace modelstore::fuzz
