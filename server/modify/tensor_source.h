// Sources describe where the bytes of a tensor under edit come from. Making a source
// reads nothing. Once all edits are applied, the tensors that must be stored anew are
// read through Visit(), in ranges, by several threads.
//
//   auto kept = StoredSource(read, 3);          // shares the chunks: reads nothing
//   auto half = CastSource(kept, DType::kFloat32, DType::kFloat16);
//   half->Visit(0, half->size_bytes(), [&](absl::string_view bytes) { ... });
//
// Sources compose: a cast of an average of rows is one source over others. Bytes are
// row-major and little-endian, as in stored tensors. A source owns what it reads from: it
// keeps the checkpoints below it open.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/contract/dtype.h"
#include "storage/api/reads.h"

namespace modelstore::server::modify {

// Immutable and thread-safe.
class TensorSource {
 public:
  using BytesCallback = absl::FunctionRef<absl::Status(absl::string_view bytes)>;

  virtual ~TensorSource() = default;

  // Size of the whole tensor in bytes.
  virtual int64_t size_bytes() const = 0;

  // Passes the bytes in [begin, end) to `take`, in order, in views that are valid during
  // the call only. If `begin` and `end` are multiples of the element size, each view
  // holds whole elements. Stops at the first error, of `take` or of the source: DATA_LOSS
  // naming the stored tensor, or INTERNAL if the range is not within the source or the
  // source does not produce exactly these bytes. Takes working_bytes() of memory,
  // whatever the size of the tensor.
  absl::Status Visit(int64_t begin, int64_t end, BytesCallback take) const;

  // Bytes that a Visit() of the whole tensor reads from storage.
  virtual int64_t read_bytes() const = 0;

  // Length of the longest chain of sources, this one included: the depth to which Visit()
  // nests.
  virtual int depth() const { return 1; }
  // Memory in bytes that one Visit() needs, including all sources below.
  virtual int64_t working_bytes() const { return 0; }

  // A stored tensor. A new version that holds these bytes shares its chunks.
  struct Stored {
    std::shared_ptr<storage::Read> read;
    // Position in read->manifest().
    int tensor = 0;
  };
  // Set if these are the bytes of a whole stored tensor, unchanged.
  virtual const Stored* stored() const { return nullptr; }

  // The sources whose concatenation this one is; empty if it is no concatenation. A part
  // that is a whole stored tensor and consists of whole rows is shared too.
  virtual absl::Span<const std::shared_ptr<const TensorSource>> parts() const {
    return {};
  }

  // The source whose elements this one converts to another type; null if it is no cast.
  virtual const TensorSource* cast_of() const { return nullptr; }

 protected:
  // Implements Visit(). The range is not empty and within the source. Called by several
  // threads at once.
  virtual absl::Status DoVisit(int64_t begin, int64_t end, BytesCallback take) const = 0;
};

using SourcePtr = std::shared_ptr<const TensorSource>;

// Limits on depth() and working_bytes() of a source, so that computing a chunk takes
// bounded memory, stack and time. ReplaceBytes() refuses an edit that exceeds one.
inline constexpr int kMaxSourceDepth = 64;
inline constexpr int64_t kMaxWorkingBytes = int64_t{96} << 20;

// Approximate memory of a source that is a part of another, including the pointer to it
// and its end.
inline constexpr int64_t kPartBytes = 128;

// Returns the first source below `source` that is not a cast, or `source` itself.
const TensorSource& WithoutCasts(const TensorSource& source);

// A stored tensor of an open checkpoint, at position `tensor` of its manifest. It must
// have pieces of its own: among tied tensors, it is the first.
SourcePtr StoredSource(std::shared_ptr<storage::Read> read, int tensor);

// The bytes [begin, end) of `of`, such as some of its rows. If `of` does not have them,
// Visit() fails.
SourcePtr RangeSource(SourcePtr of, int64_t begin, int64_t end);

// The concatenation of `parts`. If these are rows of a tensor, each part should hold
// whole rows, so that stored parts can be shared.
SourcePtr ConcatSource(std::vector<SourcePtr> parts);

// Converts each element of `of` from type `from` to type `to`. CanCast(from, to) must be
// true.
SourcePtr CastSource(SourcePtr of, DType from, DType to);

// The weighted sum of sources of equal size, all of floating-point type `dtype`. Each
// element is summed in float64, in the order given, and rounded once. `coefficients` has
// one entry per source.
SourcePtr AverageSource(std::vector<SourcePtr> of, std::vector<double> coefficients,
                        DType dtype);

}  // namespace modelstore::server::modify
