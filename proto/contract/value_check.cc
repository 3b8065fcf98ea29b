#include "proto/contract/value_check.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/value.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/names.h"
#include "proto/contract/torch_names.h"
#include "proto/contract/utf8.h"
#include "proto/contract/value_equality.h"

namespace modelstore {
namespace {

using Entries = google::protobuf::RepeatedPtrField<v1::DictValue::Entry>;
using Values = google::protobuf::RepeatedPtrField<v1::Value>;

constexpr size_t kMaxGlobalBytes = 1024;
constexpr size_t kShownBytes = 64;
constexpr size_t kShownPathBytes = 512;
constexpr size_t kPlaceBytes = 128;

bool IsDecimal(absl::string_view text) {
  if (!text.empty() && text[0] == '-') text.remove_prefix(1);
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

bool IsGlobalName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxGlobalBytes && IsUtf8(name) &&
         std::none_of(name.begin(), name.end(), [](char c) {
           return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
         });
}

std::string Cut(const std::string& text, size_t most) {
  return text.size() <= most ? text : ToUtf8(text, most) + "...";
}

std::string Shown(const v1::Value& value) {
  const std::string text = PrintValue(value);
  return Cut(text, kShownBytes);
}

// Walks the tree depth first and keeps the path for error messages. Stops at the first
// error.
class Checker {
 public:
  Checker(absl::string_view field, absl::string_view what, int max_depth,
          std::vector<NamedTensor>* tensors)
      : field_(field), what_(what), max_depth_(max_depth), tensors_(tensors) {}

  absl::Status Check(const v1::Value& value) {
    if (static_cast<int>(depth_) >= max_depth_) {
      return Refuse(absl::StrCat("more than ", max_depth_, " levels deep"));
    }
    ++depth_;
    absl::Status status = CheckKind(value);
    --depth_;
    return status;
  }

 private:
  // An element of the path. Its text is built only when needed.
  struct Step {
    absl::string_view part;          // `~args`, or empty
    const v1::Value* key = nullptr;  // of a dict
    int index = 0;
    // Text of the key, built once for all values below it: it may have megabytes.
    std::string spelled;
  };

  // The path of the current value, truncated to `most` bytes.
  std::string Path(size_t most) {
    std::string path;
    for (Step& step : path_) {
      if (path.size() > most) break;
      if (!step.part.empty()) absl::StrAppend(&path, path.empty() ? "" : "/", step.part);
      if (step.index < 0) continue;
      if (step.key != nullptr && step.spelled.empty()) {
        step.spelled = Cut(KeyElement(*step.key), kShownPathBytes);
      }
      absl::StrAppend(&path, path.empty() ? "" : "/",
                      step.key != nullptr ? step.spelled : absl::StrCat(step.index));
    }
    return Cut(path, most);
  }

  absl::Status Refuse(absl::string_view why) {
    const std::string path = Path(kShownPathBytes);
    return InvalidField(field_,
                        absl::StrCat(what_, path.empty() ? "" : " ", path, ": ", why));
  }

  absl::Status CheckText(absl::string_view text) {
    if (IsUtf8(text)) return absl::OkStatus();
    // Finds the first invalid byte for the message.
    size_t at = 0;
    while (Utf8SequenceLength(text.substr(at)) > 0) {
      at += Utf8SequenceLength(text.substr(at));
    }
    return Refuse(absl::StrCat("a string is not UTF-8 at byte ", at,
                               ": save its bytes as bytes_value"));
  }

  absl::Status CheckGlobal(const v1::GlobalValue& global) {
    if (IsGlobalName(global.module()) && IsGlobalName(global.qualified_name())) {
      return absl::OkStatus();
    }
    return Refuse(absl::StrCat("module and qualified_name must be 1 to ", kMaxGlobalBytes,
                               " bytes of UTF-8 without control characters"));
  }

  absl::Status CheckTensor(const std::string& key) {
    if (tensors_ == nullptr) return Refuse("a tensor has no place here");
    if (auto s = ValidateKey(field_, key); !s.ok()) {
      return Refuse(
          "tensor_value must be a key: 1 to 1024 bytes of UTF-8 without "
          "control characters");
    }
    // Only the first reference is reported, which bounds the work for a hostile tree.
    if (!named_.insert(key).second) return absl::OkStatus();
    if (static_cast<int64_t>(named_.size()) > kMaxTensors) {
      return Refuse(absl::StrCat("names more than ", kMaxTensors,
                                 " tensors, which is what a checkpoint may hold"));
    }
    tensors_->push_back({key, Path(kPlaceBytes)});
    return absl::OkStatus();
  }

  absl::Status CheckKind(const v1::Value& value) {
    switch (value.kind_case()) {
      case v1::Value::KIND_NOT_SET:
        return Refuse("a value has no kind: use null_value for None");
      case v1::Value::kBigIntValue:
        return CheckBigInt(value.big_int_value());
      case v1::Value::kStringValue:
        return CheckText(value.string_value());
      case v1::Value::kDtypeValue:
        if (IsDTypeText(value.dtype_value())) return absl::OkStatus();
        return Refuse(absl::StrCat("`", ToUtf8(value.dtype_value(), kShownBytes),
                                   "` is no dtype of PyTorch"));
      case v1::Value::kDeviceValue:
        if (IsDeviceText(value.device_value())) return absl::OkStatus();
        return Refuse(absl::StrCat("`", ToUtf8(value.device_value(), kShownBytes),
                                   "` is no device of PyTorch"));
      case v1::Value::kTensorValue:
        return CheckTensor(value.tensor_value());
      case v1::Value::kListValue:
        return CheckAll("", value.list_value().values());
      case v1::Value::kTupleValue:
        return CheckAll("", value.tuple_value().values());
      case v1::Value::kSetValue:
        return CheckSet(value.set_value().values());
      case v1::Value::kFrozensetValue:
        return CheckSet(value.frozenset_value().values());
      case v1::Value::kDictValue:
        return CheckDict(value.dict_value());
      case v1::Value::kGlobalValue:
        return CheckGlobal(value.global_value());
      case v1::Value::kObjectValue:
        return CheckObject(value.object_value());
      case v1::Value::kNullValue:
      case v1::Value::kBoolValue:
      case v1::Value::kIntValue:
      case v1::Value::kDoubleValue:
      case v1::Value::kComplexValue:
      case v1::Value::kBytesValue:
      case v1::Value::kSizeValue:
        return absl::OkStatus();
    }
    return Refuse("a value is of a kind that this server does not know");
  }

  absl::Status CheckBigInt(absl::string_view digits) {
    if (!IsDecimal(digits)) {
      return Refuse(
          absl::StrCat("`", ToUtf8(digits, kShownBytes), "` is not a decimal integer"));
    }
    const size_t count = digits.size() - (digits[0] == '-' ? 1 : 0);
    if (count <= kMaxBigIntDigits) return absl::OkStatus();
    return Refuse(absl::StrCat("an integer of ", count, " digits; at most ",
                               kMaxBigIntDigits, ": save a larger one as bytes"));
  }

  absl::Status CheckAll(absl::string_view part, const Values& values) {
    path_.push_back({part, nullptr, 0, ""});
    for (int i = 0; i < values.size(); ++i) {
      path_.back().index = i;
      if (auto s = Check(values[i]); !s.ok()) return s;
    }
    path_.pop_back();
    return absl::OkStatus();
  }

  absl::Status CheckSet(const Values& values) {
    absl::flat_hash_set<std::string> seen;
    path_.push_back({"", nullptr, 0, ""});
    for (int i = 0; i < values.size(); ++i) {
      path_.back().index = i;
      if (auto s = Check(values[i]); !s.ok()) return s;
      if (auto s = CheckHashed(values[i], "an element of a set", seen); !s.ok()) return s;
    }
    path_.pop_back();
    return absl::OkStatus();
  }

  // `role` describes the value: `a key of a dict`.
  absl::Status CheckHashed(const v1::Value& value, absl::string_view role,
                           absl::flat_hash_set<std::string>& seen) {
    absl::StatusOr<std::string> identity = HashIdentity(value);
    if (!identity.ok()) {
      return Refuse(absl::StrCat(identity.status().message(), " cannot be ", role));
    }
    if (identity->empty() || seen.insert(*std::move(identity)).second) {
      return absl::OkStatus();
    }
    return Refuse(absl::StrCat(Shown(value), " is equal to ", role, " before it"));
  }

  absl::Status CheckEntries(absl::string_view part, const Entries& entries) {
    absl::flat_hash_set<std::string> seen;
    // Keys that are equal in Python would overwrite each other there.
    path_.push_back({part, nullptr, 0, ""});
    for (const auto& entry : entries) {
      path_.back().key = &entry.key();
      path_.back().spelled.clear();
      if (auto s = CheckKey(entry.key(), seen); !s.ok()) return s;
      if (auto s = Check(entry.value()); !s.ok()) return s;
    }
    path_.pop_back();
    return absl::OkStatus();
  }

  // During the checks of a key, the path is that of the dict.
  absl::Status CheckKey(const v1::Value& key, absl::flat_hash_set<std::string>& seen) {
    // Strings and integers are the common keys and need no recursive check.
    const bool scalar = key.kind_case() == v1::Value::kStringValue ||
                        key.kind_case() == v1::Value::kIntValue;
    if (!scalar || !IsUtf8(key.string_value())) {
      Step step = path_.back();
      path_.back().key = nullptr;
      path_.back().index = -1;
      if (auto s = Check(key); !s.ok()) return s;
      path_.back() = step;
    }
    return CheckHashed(key, "a key of a dict", seen);
  }

  // Attributes and keyword arguments: every key must be a string.
  absl::Status CheckNamed(absl::string_view part, const Entries& entries) {
    for (const auto& entry : entries) {
      if (entry.key().kind_case() == v1::Value::kStringValue) continue;
      return Refuse(absl::StrCat("a name in ", part.substr(1), " is not a string"));
    }
    return CheckEntries(part, entries);
  }

  absl::Status CheckDict(const v1::DictValue& dict) {
    if (dict.attributes_size() > 0 && !dict.ordered_dict()) {
      return Refuse("a dict has no attributes: only an OrderedDict has");
    }
    if (auto s = CheckEntries("", dict.entries()); !s.ok()) return s;
    return CheckNamed("~attributes", dict.attributes());
  }

  absl::Status CheckObject(const v1::ObjectValue& object) {
    if (auto s = CheckGlobal(object.type()); !s.ok()) return s;
    if (!v1::ObjectValue::Construction_IsValid(object.construction())) {
      return Refuse("construction is unknown");
    }
    if (auto s = CheckAll("~args", object.args()); !s.ok()) return s;
    if (auto s = CheckNamed("~keywords", object.keywords()); !s.ok()) return s;
    if (auto s = CheckNamed("~attributes", object.attributes()); !s.ok()) return s;
    if (object.has_state()) {
      if (object.attributes_size() > 0) {
        return Refuse("an object has attributes or a state, not both");
      }
      path_.push_back({"~state", nullptr, -1, ""});
      if (auto s = Check(object.state()); !s.ok()) return s;
      path_.pop_back();
    }
    if (auto s = CheckAll("", object.items()); !s.ok()) return s;
    return CheckEntries("", object.entries());
  }

  const absl::string_view field_;
  const absl::string_view what_;
  const int max_depth_;
  std::vector<NamedTensor>* const tensors_;
  int depth_ = 0;
  std::vector<Step> path_;
  // Tensor keys referenced so far; views into the tree.
  absl::flat_hash_set<absl::string_view> named_;
};

}  // namespace

absl::Status CheckValue(absl::string_view field, absl::string_view what,
                        const v1::Value& value, int max_depth,
                        std::vector<NamedTensor>* tensors) {
  return Checker(field, what, max_depth, tensors).Check(value);
}

std::string KeyElement(const v1::Value& key) {
  if (key.kind_case() == v1::Value::kStringValue) {
    return EscapeKeyElement(key.string_value());
  }
  const std::string text = EscapeKeyElement(PrintValue(key));
  const bool decimal = key.kind_case() == v1::Value::kIntValue ||
                       key.kind_case() == v1::Value::kBigIntValue;
  return decimal ? text : absl::StrCat("~:", text);
}

}  // namespace modelstore
