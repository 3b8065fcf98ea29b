#include "proto/contract/digest.h"

#include <cstdlib>
#include <new>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

// On x86 these entry points select AVX2 or AVX-512 at run time. The default ones are
// compiled for SSE2 and run at half the speed.
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

namespace modelstore {

size_t DigestLength(DigestAlgorithm algorithm) {
  switch (algorithm) {
    case DigestAlgorithm::kXxh3_128:
      return 16;
  }
  return 0;
}

absl::StatusOr<DigestAlgorithm> DigestAlgorithmFromNumber(int number) {
  if (number == static_cast<int>(DigestAlgorithm::kXxh3_128)) {
    return DigestAlgorithm::kXxh3_128;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("this build has no digest algorithm of number ", number));
}

absl::StatusOr<Digest> Digest::FromBytes(DigestAlgorithm algorithm,
                                         absl::string_view bytes) {
  if (bytes.size() != DigestLength(algorithm)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a digest has ", bytes.size(), " bytes instead of ", DigestLength(algorithm)));
  }
  Digest digest;
  digest.algorithm_ = algorithm;
  digest.length_ = static_cast<uint8_t>(bytes.size());
  std::memcpy(digest.bytes_.data(), bytes.data(), bytes.size());
  return digest;
}

std::string Digest::ToHex() const { return absl::BytesToHexString(bytes()); }

namespace {

// The canonical form of XXH128 is big-endian, high half first.
Digest FromXxh128(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  return *Digest::FromBytes(
      DigestAlgorithm::kXxh3_128,
      absl::string_view(reinterpret_cast<const char*>(canonical.digest),
                        sizeof(canonical.digest)));
}

}  // namespace

struct Digester::State {
  State() : xxh3(XXH3_createState()) {
    if (xxh3 == nullptr) throw std::bad_alloc();
    XXH3_128bits_reset(xxh3);
  }
  ~State() { XXH3_freeState(xxh3); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  XXH3_state_t* xxh3;
};

Digester::Digester(DigestAlgorithm) : state_(std::make_unique<State>()) {}
Digester::~Digester() = default;
Digester::Digester(Digester&&) noexcept = default;
Digester& Digester::operator=(Digester&&) noexcept = default;

void Digester::Update(absl::string_view bytes) {
  if (bytes.empty()) return;
  XXH3_128bits_update(state_->xxh3, bytes.data(), bytes.size());
}

Digest Digester::Finish() {
  Digest digest = FromXxh128(XXH3_128bits_digest(state_->xxh3));
  XXH3_128bits_reset(state_->xxh3);
  return digest;
}

Digest ComputeDigest(DigestAlgorithm, absl::string_view bytes) {
  return FromXxh128(XXH3_128bits(bytes.data(), bytes.size()));
}

}  // namespace modelstore
