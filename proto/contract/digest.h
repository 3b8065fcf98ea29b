// Digests identify and verify the bytes of chunks, on the wire and on disk. A digest is a
// pair of algorithm and bytes.
//
//   Digest d = ComputeDigest(DigestAlgorithm::kXxh3_128, bytes);
//   if (d != expected) ...
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace modelstore {

// The numbers are those of modelstore.v1.DigestAlgorithm; they are stored.
enum class DigestAlgorithm : uint8_t { kXxh3_128 = 1 };

// Length in bytes of an algorithm's digests: 16 for kXxh3_128.
size_t DigestLength(DigestAlgorithm algorithm);

// INVALID_ARGUMENT for a number that is no algorithm of this build.
absl::StatusOr<DigestAlgorithm> DigestAlgorithmFromNumber(int number);

// A value type of fixed size; cheap to copy, comparable, hashable.
class Digest {
 public:
  static constexpr size_t kMaxLength = 32;

  Digest() = default;

  // InvalidArgument unless `bytes` has exactly the algorithm's length.
  static absl::StatusOr<Digest> FromBytes(DigestAlgorithm algorithm,
                                          absl::string_view bytes);

  DigestAlgorithm algorithm() const { return algorithm_; }
  absl::string_view bytes() const { return absl::string_view(bytes_.data(), length_); }
  // Lowercase.
  std::string ToHex() const;

  friend bool operator==(const Digest& a, const Digest& b) {
    return a.algorithm_ == b.algorithm_ && a.bytes_ == b.bytes_;
  }
  template <typename H>
  friend H AbslHashValue(H h, const Digest& d) {
    // The bytes are uniformly distributed, so eight of them are enough.
    uint64_t word;
    std::memcpy(&word, d.bytes_.data(), sizeof(word));
    return H::combine(std::move(h), word);
  }

 private:
  DigestAlgorithm algorithm_ = DigestAlgorithm::kXxh3_128;
  uint8_t length_ = 0;
  std::array<char, kMaxLength> bytes_ = {};
};

// Computes a digest incrementally. Not thread-safe. Can be reused after Finish().
class Digester {
 public:
  explicit Digester(DigestAlgorithm algorithm);
  ~Digester();
  Digester(Digester&&) noexcept;
  Digester& operator=(Digester&&) noexcept;

  void Update(absl::string_view bytes);
  // Returns the digest of everything since construction or the last Finish().
  Digest Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Digest ComputeDigest(DigestAlgorithm algorithm, absl::string_view bytes);

}  // namespace modelstore
