#include "proto/contract/chunk_wire.h"

#include <cstdint>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace modelstore {
namespace {

enum WireType : uint32_t {
  kVarint = 0,
  kFixed64 = 1,
  kLengthDelimited = 2,
  kStartGroup = 3,
  kEndGroup = 4,
  kFixed32 = 5,
};

constexpr uint32_t kDataTag = kChunkDataField << 3 | kLengthDelimited;
// The limits of protobuf's parser, so that both refuse the same bytes.
constexpr size_t kMaxGroupDepth = 100;
constexpr uint64_t kMaxLength = std::numeric_limits<int32_t>::max() - 16;

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed message: ", what));
}

// Reads bytes from fragments. All fields except `data` are short, so tags are read byte
// by byte; contents are skipped or copied as blocks.
class FragmentReader {
 public:
  explicit FragmentReader(absl::Span<const absl::string_view> fragments)
      : fragments_(fragments) {
    SkipEmpty();
  }

  bool AtEnd() const { return fragments_.empty(); }

  // Reads a varint of at most `max_bytes` bytes and appends its bytes to `raw`.
  bool ReadVarint(int max_bytes, std::string* raw, uint64_t* value) {
    *value = 0;
    for (int i = 0; i < max_bytes; ++i) {
      if (AtEnd()) return false;
      const auto byte = static_cast<unsigned char>(fragments_.front()[offset_]);
      raw->push_back(static_cast<char>(byte));
      Advance(1);
      *value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
      if (byte < 0x80) return true;
    }
    return false;
  }

  // Calls take(view) for the next `count` bytes, once per fragment.
  template <typename Take>
  bool Read(uint64_t count, Take take) {
    while (count > 0) {
      if (AtEnd()) return false;
      const absl::string_view piece = fragments_.front().substr(offset_, count);
      take(piece);
      count -= piece.size();
      Advance(piece.size());
    }
    return true;
  }

 private:
  void Advance(size_t count) {
    offset_ += count;
    if (offset_ == fragments_.front().size()) {
      offset_ = 0;
      fragments_.remove_prefix(1);
      SkipEmpty();
    }
  }

  void SkipEmpty() {
    while (!fragments_.empty() && fragments_.front().empty()) fragments_.remove_prefix(1);
  }

  absl::Span<const absl::string_view> fragments_;
  size_t offset_ = 0;
};

class Splitter {
 public:
  Splitter(absl::Span<const absl::string_view> fragments, size_t max_head_bytes)
      : reader_(fragments), max_head_bytes_(max_head_bytes) {}

  absl::StatusOr<SplitMessage> Run() {
    while (!reader_.AtEnd()) {
      if (absl::Status status = ReadField(); !status.ok()) return status;
    }
    if (!open_groups_.empty()) return Malformed("a group does not end");
    return std::move(result_);
  }

 private:
  absl::Status ReadField() {
    // Tag and length are appended to the head at once, and removed again for `data`.
    const size_t begin = result_.head.size();
    uint64_t tag64;
    if (!reader_.ReadVarint(5, &result_.head, &tag64)) return Malformed("a tag is cut");
    const auto tag = static_cast<uint32_t>(tag64);
    if (tag >> 3 == 0) return Malformed("field number 0");
    if (tag == kDataTag && open_groups_.empty()) return ReadData(begin);
    return ReadOther(tag);
  }

  absl::StatusOr<uint64_t> ReadLength() {
    uint64_t length;
    if (!reader_.ReadVarint(5, &result_.head, &length))
      return Malformed("a length is cut");
    if (length > kMaxLength) return Malformed("a length over 2 GiB");
    return length;
  }

  absl::Status ReadData(size_t begin) {
    absl::StatusOr<uint64_t> length = ReadLength();
    if (!length.ok()) return length.status();
    result_.head.resize(begin);
    result_.data.clear();
    result_.data_bytes = *length;
    if (!reader_.Read(*length, [&](absl::string_view v) { result_.data.push_back(v); })) {
      return Malformed("`data` is cut");
    }
    return absl::OkStatus();
  }

  absl::Status ReadOther(uint32_t tag) {
    switch (tag & 7) {
      case kVarint: {
        uint64_t value;
        if (!reader_.ReadVarint(10, &result_.head, &value)) {
          return Malformed("a varint is cut");
        }
        return CheckHead(0);
      }
      case kFixed64:
        return CopyToHead(8);
      case kFixed32:
        return CopyToHead(4);
      case kLengthDelimited: {
        absl::StatusOr<uint64_t> length = ReadLength();
        return length.ok() ? CopyToHead(*length) : length.status();
      }
      case kStartGroup:
        if (open_groups_.size() == kMaxGroupDepth)
          return Malformed("groups nest too deep");
        open_groups_.push_back(tag >> 3);
        return CheckHead(0);
      case kEndGroup:
        if (open_groups_.empty() || open_groups_.back() != tag >> 3) {
          return Malformed("a group ends that has not begun");
        }
        open_groups_.pop_back();
        return CheckHead(0);
      default:
        return Malformed("an unknown wire type");
    }
  }

  absl::Status CopyToHead(uint64_t count) {
    if (absl::Status status = CheckHead(count); !status.ok()) return status;
    if (!reader_.Read(count, [&](absl::string_view v) {
          result_.head.append(v.data(), v.size());
        })) {
      return Malformed("a field is cut");
    }
    return absl::OkStatus();
  }

  // Called before `more` bytes are copied, as the announced length is not trusted.
  absl::Status CheckHead(uint64_t more) const {
    if (result_.head.size() + more <= max_head_bytes_) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "the fields of a message beside `data` exceed ", max_head_bytes_, " bytes"));
  }

  FragmentReader reader_;
  const size_t max_head_bytes_;
  SplitMessage result_;
  std::vector<uint32_t> open_groups_;
};

}  // namespace

std::string ChunkMessageHead(const google::protobuf::MessageLite& message,
                             size_t payload_bytes) {
  std::string head = message.SerializeAsString();
  if (payload_bytes == 0) return head;
  head.push_back(static_cast<char>(kDataTag));
  size_t rest = payload_bytes;
  for (; rest >= 0x80; rest >>= 7) head.push_back(static_cast<char>(rest | 0x80));
  head.push_back(static_cast<char>(rest));
  return head;
}

absl::StatusOr<SplitMessage> SplitChunkMessage(
    absl::Span<const absl::string_view> fragments, size_t max_head_bytes) {
  return Splitter(fragments, max_head_bytes).Run();
}

}  // namespace modelstore
