#include "storage/rocksdb/block_checksum.h"

#include <new>

// See proto/contract/digest.cc.
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

namespace modelstore::storage::rocks {
namespace {

// RocksDB combines the compression type with the hash instead of hashing it as the last
// byte, so that a block need not be copied to append the type.
uint32_t MixIn(uint64_t hash, uint8_t type) {
  return static_cast<uint32_t>(hash) ^ (type * uint32_t{0x6b9083d9});
}

}  // namespace

struct BlockChecksum::State {
  State() : xxh3(XXH3_createState()) {
    if (xxh3 == nullptr) throw std::bad_alloc();
    XXH3_64bits_reset(xxh3);
  }
  ~State() { XXH3_freeState(xxh3); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  XXH3_state_t* const xxh3;
};

BlockChecksum::BlockChecksum() : state_(std::make_unique<State>()) {}
BlockChecksum::~BlockChecksum() = default;

void BlockChecksum::Update(absl::string_view bytes) {
  XXH3_64bits_update(state_->xxh3, bytes.data(), bytes.size());
}

uint32_t BlockChecksum::Finish(uint8_t type) {
  const uint64_t hash = XXH3_64bits_digest(state_->xxh3);
  XXH3_64bits_reset(state_->xxh3);
  return MixIn(hash, type);
}

uint32_t BlockChecksum::Of(absl::string_view block, uint8_t type) {
  return MixIn(XXH3_64bits(block.data(), block.size()), type);
}

}  // namespace modelstore::storage::rocks
