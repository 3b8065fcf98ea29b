// The server without torch.
#include "server/modify/random_source.h"

namespace modelstore::server::modify {
namespace {

absl::Status NoTorch() {
  return absl::UnimplementedError(
      "this server was built without torch and draws no new parameters as PyTorch "
      "does; name an initialization of ZEROS, ONES or CONSTANT for layers that need "
      "no other");
}

}  // namespace

struct RandomDraws::State {};

bool WithTorch() { return false; }

RandomDraws::RandomDraws(uint64_t) {}
RandomDraws::~RandomDraws() = default;

absl::StatusOr<SourcePtr> RandomDraws::Uniform(int64_t, double, double) {
  return NoTorch();
}
absl::StatusOr<SourcePtr> RandomDraws::Normal(int64_t, double, double) {
  return NoTorch();
}

}  // namespace modelstore::server::modify
