// Where the bytes of a tensor under edit come from. Nothing is read while edits
// are applied: a source is a description, and only what has to be stored anew is
// visited, once, in parts, by several threads.
//
//   auto kept = StoredSource(read, 3);          // shares the chunks: reads nothing
//   auto half = CastSource(kept, DType::kFloat32, DType::kFloat16);
//   half->Visit(0, half->size_bytes(), [&](absl::string_view bytes) { ... });
//
// Sources compose: a cast of an average of rows is one source over the others.
// Their bytes are row-major and little-endian, as a tensor's always are.
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

  // Of the whole tensor.
  virtual int64_t size_bytes() const = 0;

  // Hands over the bytes from `begin` to `end`, in order, in views that live for
  // the call of `take` alone. Where `begin` and `end` are multiples of the element
  // size, so is each view. The first error ends it: DATA_LOSS names the stored
  // tensor; INTERNAL if the range is not within the source, or the source does not
  // give exactly these bytes. Memory: working_bytes(), whatever the tensor's size.
  absl::Status Visit(int64_t begin, int64_t end, BytesCallback take) const;

  // What one whole Visit() reads from storage.
  virtual int64_t read_bytes() const = 0;

  // Sources that are stacked at most, this one included: Visit() calls itself so
  // often.
  virtual int depth() const { return 1; }
  // Memory that one Visit() takes, with all sources below.
  virtual int64_t working_bytes() const { return 0; }

  // Bytes of a stored tensor whose chunks are shared where these are stored.
  struct Stored {
    std::shared_ptr<storage::Read> read;
    // Position in read->manifest().
    int tensor = 0;
  };
  // Set if these are the bytes of a whole stored tensor, unchanged.
  virtual const Stored* stored() const { return nullptr; }

  // The sources that these bytes consist of, one after the other; empty if they
  // are not put together of others. A part that is stored() as a whole, and
  // begins and ends at a row, is shared too.
  virtual absl::Span<const std::shared_ptr<const TensorSource>> parts() const {
    return {};
  }

  // Set if these are the elements of another source in another type.
  virtual const TensorSource* cast_of() const { return nullptr; }

 protected:
  // As Visit(), of a range that is within the source.
  virtual absl::Status DoVisit(int64_t begin, int64_t end, BytesCallback take) const = 0;
};

using SourcePtr = std::shared_ptr<const TensorSource>;

// What may be stacked on a tensor, so that computing a chunk of it takes bounded
// memory, stack and time. A list of edits that goes beyond is refused.
inline constexpr int kMaxSourceDepth = 64;
inline constexpr int64_t kMaxWorkingBytes = int64_t{96} << 20;

// Memory of a source that is a part of another, about: with its pointer and its end.
inline constexpr int64_t kPartBytes = 128;

// The source whose elements these are, whatever casts lie over it.
const TensorSource& WithoutCasts(const TensorSource& source);

// A tensor of a checkpoint that is held open: its chunks are shared. It has pieces
// of its own: of tied tensors, the first.
SourcePtr StoredSource(std::shared_ptr<storage::Read> read, int tensor);

// The bytes of `of` from `begin` to `end`, such as some of its rows. Asking for what
// `of` does not have is an error of Visit().
SourcePtr RangeSource(SourcePtr of, int64_t begin, int64_t end);

// One after the other. Of a tensor's rows: each part is whole rows.
SourcePtr ConcatSource(std::vector<SourcePtr> parts);

// Each element of `of`, which is of type `from`, in type `to`. CanCast(from, to).
SourcePtr CastSource(SourcePtr of, DType from, DType to);

// The weighted sum of equally many elements of one floating-point type, held in
// float64 in the order given and rounded once.
SourcePtr AverageSource(std::vector<SourcePtr> of, std::vector<double> coefficients,
                        DType dtype);

}  // namespace modelstore::server::modify
