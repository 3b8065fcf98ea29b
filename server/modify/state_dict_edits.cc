// Edits that change keys, sections and requires_grad. They compute no tensor.
#include <array>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/names.h"
#include "server/core/pattern.h"
#include "server/modify/apply_edit.h"
#include "server/modify/key_selection.h"
#include "server/modify/path_renames.h"

namespace modelstore::server::modify {
namespace {

// A replacement can refer to \0 to \9.
constexpr int kGroups = 10;

constexpr size_t kMaxReplacementBytes = 4096;
constexpr size_t kMaxPrefixBytes = 1024;

int64_t KeyBytes(const KeyPairs& keys) {
  int64_t bytes = 0;
  for (const auto& [key, unused] : keys) {
    bytes += static_cast<int64_t>(sizeof(KeyPairs::value_type) + key.size());
  }
  return bytes;
}

// Renames the tensors of a section and updates `_metadata` and the architecture. An error
// names `field`.
absl::Status RenameAll(const std::string& section, absl::string_view field,
                       absl::FunctionRef<std::string(const WorkingTensor&)> new_key,
                       EditContext& context) {
  KeyPairs keys;
  for (const WorkingTensor& tensor : context.checkpoint.tensors()) {
    if (tensor.section == section) keys.emplace_back(tensor.key, "");
  }
  auto borrowed = context.resources.Borrow(KeyBytes(keys));
  if (!borrowed.ok()) return borrowed.status();
  const int64_t path_bytes = context.checkpoint.PathBytes(section);
  absl::Status stopped;
  const absl::Status s =
      context.checkpoint.Rename(section, [&](const WorkingTensor& tensor) {
        if (stopped.ok()) stopped = context.resources.CheckCancelled();
        if (!stopped.ok()) return tensor.key;
        std::string key = new_key(tensor);
        // Three copies: one in `keys`, one in the table, and one in Rename()'s set of new
        // keys.
        stopped = borrowed->Grow(3 * static_cast<int64_t>(key.size()));
        return key;
      });
  if (!stopped.ok()) return stopped;
  if (!s.ok()) return context.At(field, s);
  size_t next = 0;
  bool changed = false;
  for (const WorkingTensor& tensor : context.checkpoint.tensors()) {
    if (tensor.section != section) continue;
    keys[next].second = tensor.key;
    changed |= keys[next].first != keys[next].second;
    ++next;
  }
  if (!changed) return absl::OkStatus();
  const auto paths = context.resources.Borrow(path_bytes);
  if (!paths.ok()) return paths.status();
  return context.At(field, FollowKeys(section, keys, context));
}

absl::Status CheckPrefix(absl::string_view prefix, const EditContext& context) {
  if (prefix.empty()) return context.Invalid("prefix", "is required");
  if (prefix.size() <= kMaxPrefixBytes) return absl::OkStatus();
  return context.Invalid(
      "prefix",
      absl::StrCat("is ", prefix.size(), " bytes long, of at most ", kMaxPrefixBytes));
}

}  // namespace

absl::Status ApplyRenameKeys(const v1::Edit::RenameKeys& edit, EditContext& context) {
  auto section = SectionOf(edit.section(), context);
  if (!section.ok()) return section.status();
  auto pattern = CompilePattern(context.Field("pattern"), edit.pattern());
  if (!pattern.ok()) return pattern.status();
  if (edit.replacement().size() > kMaxReplacementBytes) {
    return context.Invalid(
        "replacement", absl::StrCat("is ", edit.replacement().size(),
                                    " bytes long, of at most ", kMaxReplacementBytes));
  }
  std::string error;
  if (!(*pattern)->CheckRewriteString(edit.replacement(), &error)) {
    return context.Invalid("replacement", error);
  }
  bool matched = false;
  const int groups = std::min((*pattern)->NumberOfCapturingGroups() + 1, kGroups);
  auto renamed = [&](const WorkingTensor& tensor) {
    std::array<re2::StringPiece, kGroups> found;
    std::string key;
    if (!(*pattern)->Match(tensor.key, 0, tensor.key.size(), RE2::ANCHOR_BOTH,
                           found.data(), groups) ||
        !(*pattern)->Rewrite(&key, edit.replacement(), found.data(), groups)) {
      return tensor.key;
    }
    matched = true;
    return key;
  };
  if (auto s = RenameAll(*section, "replacement", renamed, context); !s.ok()) return s;
  if (matched) return absl::OkStatus();
  return context.Missing("pattern", "key of pattern",
                         TensorNameOf(*section, edit.pattern()));
}

absl::Status ApplyStripPrefix(const v1::Edit::StripPrefix& edit, EditContext& context) {
  if (auto s = CheckPrefix(edit.prefix(), context); !s.ok()) return s;
  auto section = SectionOf(edit.section(), context);
  if (!section.ok()) return section.status();
  int with = 0, without = 0;
  std::string first_without;
  for (const WorkingTensor& tensor : context.checkpoint.tensors()) {
    if (tensor.section != *section) continue;
    if (absl::StartsWith(tensor.key, edit.prefix())) {
      ++with;
    } else if (without++ == 0) {
      first_without = tensor.key;
    }
  }
  if (with == 0) {
    return context.Missing("prefix", "key of prefix",
                           TensorNameOf(*section, edit.prefix()));
  }
  if (without > 0) {
    return context.Invalid(
        "prefix", absl::StrCat(with, " keys bear it and ", without, " do not, such as ",
                               first_without, ": use rename_keys for some of them"));
  }
  return RenameAll(
      *section, "prefix",
      [&](const WorkingTensor& tensor) {
        return tensor.key.substr(edit.prefix().size());
      },
      context);
}

absl::Status ApplyAddPrefix(const v1::Edit::AddPrefix& edit, EditContext& context) {
  if (auto s = CheckPrefix(edit.prefix(), context); !s.ok()) return s;
  auto section = SectionOf(edit.section(), context);
  if (!section.ok()) return section.status();
  return RenameAll(
      *section, "prefix",
      [&](const WorkingTensor& tensor) {
        return absl::StrCat(edit.prefix(), tensor.key);
      },
      context);
}

absl::Status ApplyDropKeys(const v1::Edit::DropKeys& edit, EditContext& context) {
  if (edit.keys().empty() && edit.patterns().empty()) {
    return context.Invalid("keys", "is required, or patterns");
  }
  auto section = SectionOf(edit.section(), context);
  if (!section.ok()) return section.status();
  auto selected = SelectKeys(*section, edit.keys(), edit.patterns(), context);
  if (!selected.ok()) return selected.status();
  absl::flat_hash_set<std::string> keys;
  for (const size_t t : *selected) keys.insert(context.checkpoint.tensors()[t].key);
  return context.checkpoint
      .EraseIf([&](const WorkingTensor& tensor) {
        return tensor.section == *section && keys.contains(tensor.key);
      })
      .status();
}

absl::Status ApplyDropSection(const v1::Edit::DropSection& edit, EditContext& context) {
  if (edit.section().empty()) return context.Invalid("section", "is required");
  if (edit.section() == "model") {
    return context.Invalid("section", "model is what a checkpoint is about");
  }
  if (context.checkpoint.DropSection(edit.section())) return absl::OkStatus();
  return context.Missing("section", "section", edit.section());
}

absl::Status ApplySetRequiresGrad(const v1::Edit::SetRequiresGrad& edit,
                                  EditContext& context) {
  auto selected = SelectKeys("model", edit.keys(), edit.patterns(), context);
  if (!selected.ok()) return selected.status();
  const bool all = edit.keys().empty() && edit.patterns().empty();
  const absl::string_view field = edit.keys().empty() ? "patterns" : "keys";
  int changed = 0;
  for (const size_t t : *selected) {
    WorkingTensor& tensor = context.checkpoint.tensors()[t];
    if (tensor.role == v1::TENSOR_ROLE_BUFFER) {
      if (!absl::c_linear_search(edit.keys(), tensor.key)) continue;
      return context.Invalid(
          "keys", absl::StrCat(tensor.key, " is a buffer, which is never trained"));
    }
    ++changed;
    if (tensor.requires_grad == edit.requires_grad()) continue;
    const bool trainable = IsFloatingPoint(tensor.dtype) || IsComplex(tensor.dtype);
    if (edit.requires_grad() && !trainable) {
      if (all) continue;
      const std::string_view name = DTypeName(tensor.dtype);
      return context.Invalid(field,
                             absl::StrCat(tensor.key, " is of type ", std::string(name),
                                          ": only floating-point and complex tensors "
                                          "have gradients"));
    }
    // Tied tensors are one parameter.
    for (WorkingTensor* tied : context.checkpoint.TiedTo(tensor)) {
      tied->requires_grad = edit.requires_grad();
    }
  }
  if (changed > 0) return absl::OkStatus();
  return context.Invalid(field, "name no parameter: buffers are never trained");
}

}  // namespace modelstore::server::modify
