#include "modelstore/edit_list.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/internal/check_strings.h"
#include "client/internal/rpc.h"
#include "modelstore/v1/edits.pb.h"
#include "proto/contract/message_codec.h"

namespace modelstore {
namespace {

std::string Text(std::string_view text) { return std::string(text); }

// Sets only the parameters that the scheme uses.
void Fill(const Initialization& from, v1::Initialization* to) {
  using Scheme = Initialization::Scheme;
  to->set_scheme(static_cast<v1::Initialization::Scheme>(from.scheme));
  switch (from.scheme) {
    case Scheme::kConstant:
      to->set_value(from.value);
      break;
    case Scheme::kNormal:
      to->set_mean(from.mean);
      to->set_std(from.std);
      break;
    case Scheme::kUniform:
      to->set_low(from.low);
      to->set_high(from.high);
      break;
    case Scheme::kXavierUniform:
    case Scheme::kXavierNormal:
      to->set_gain(from.gain);
      break;
    case Scheme::kKaimingUniform:
    case Scheme::kKaimingNormal:
      to->set_negative_slope(from.negative_slope);
      to->set_fan_out(from.fan_out);
      break;
    default:
      break;
  }
  if (from.seed.has_value()) to->set_seed(*from.seed);
}

template <typename Module>
void FillModule(std::string_view path, std::string_view module,
                const EditList::NewModule& options, Module* to) {
  to->set_path(Text(path));
  to->set_module(Text(module));
  Fill(options.initialization, to->mutable_initialization());
  if (options.optimizer_group.has_value()) {
    to->set_optimizer_group(*options.optimizer_group);
  }
  to->set_optimizer(options.optimizer);
}

template <typename Strings>
void Append(const std::vector<std::string>& from, Strings* to) {
  for (const std::string& text : from) *to->Add() = text;
}

// Serializes the edit that `change` fills in. Returns its bytes, or an empty string and
// the reason why it cannot be sent.
template <typename Change>
std::pair<std::string, std::string> Encode(Change change) {
  v1::Edit edit;
  change(edit);
  if (absl::Status s = internal::CheckStrings(edit); !s.ok()) {
    return {"", std::string(s.message())};
  }
  return {SerializeDeterministic(edit), ""};
}

}  // namespace

// Keeps the first error. An edit with an error is appended as an empty string, so that
// later indexes in messages stay right.
void EditList::Push(std::pair<std::string, std::string> encoded) {
  if (error_.empty() && !encoded.second.empty()) {
    error_ = absl::StrCat("edits[", size(), "].", encoded.second);
  }
  encoded_.push_back(std::move(encoded.first));
}

EditList& EditList::AddModule(std::string_view path, std::string_view module,
                              const NewModule& options) {
  Push(Encode([&](v1::Edit& edit) {
    FillModule(path, module, options, edit.mutable_add_module());
    edit.mutable_add_module()->set_in_forward(options.in_forward);
  }));
  return *this;
}

EditList& EditList::ReplaceModule(std::string_view path, std::string_view module,
                                  const NewModule& options) {
  Push(Encode([&](v1::Edit& edit) {
    FillModule(path, module, options, edit.mutable_replace_module());
  }));
  return *this;
}

EditList& EditList::RemoveModule(std::string_view path) {
  Push(Encode(
      [&](v1::Edit& edit) { edit.mutable_remove_module()->set_path(Text(path)); }));
  return *this;
}

EditList& EditList::RenameModule(std::string_view path, std::string_view new_name) {
  Push(Encode([&](v1::Edit& edit) {
    edit.mutable_rename_module()->set_path(Text(path));
    edit.mutable_rename_module()->set_new_name(Text(new_name));
  }));
  return *this;
}

EditList& EditList::ResizeOutput(std::string_view path, int64_t size,
                                 const std::vector<int64_t>& keep_rows, NewRows new_rows,
                                 std::optional<uint64_t> seed) {
  Push(Encode([&](v1::Edit& edit) {
    auto* resize = edit.mutable_resize_output();
    resize->set_path(Text(path));
    resize->set_size(size);
    resize->mutable_keep_rows()->Add(keep_rows.begin(), keep_rows.end());
    resize->set_new_rows(static_cast<v1::Edit::ResizeOutput::NewRows>(new_rows));
    if (seed.has_value()) resize->mutable_initialization()->set_seed(*seed);
  }));
  return *this;
}

EditList& EditList::RenameKeys(std::string_view pattern, std::string_view replacement,
                               std::string_view section) {
  Push(Encode([&](v1::Edit& edit) {
    edit.mutable_rename_keys()->set_pattern(Text(pattern));
    edit.mutable_rename_keys()->set_replacement(Text(replacement));
    edit.mutable_rename_keys()->set_section(Text(section));
  }));
  return *this;
}

EditList& EditList::StripPrefix(std::string_view prefix, std::string_view section) {
  Push(Encode([&](v1::Edit& edit) {
    edit.mutable_strip_prefix()->set_prefix(Text(prefix));
    edit.mutable_strip_prefix()->set_section(Text(section));
  }));
  return *this;
}

EditList& EditList::AddPrefix(std::string_view prefix, std::string_view section) {
  Push(Encode([&](v1::Edit& edit) {
    edit.mutable_add_prefix()->set_prefix(Text(prefix));
    edit.mutable_add_prefix()->set_section(Text(section));
  }));
  return *this;
}

EditList& EditList::DropKeys(const std::vector<std::string>& patterns,
                             std::string_view section) {
  Push(Encode([&](v1::Edit& edit) {
    Append(patterns, edit.mutable_drop_keys()->mutable_patterns());
    edit.mutable_drop_keys()->set_section(Text(section));
  }));
  return *this;
}

EditList& EditList::DropSection(std::string_view section) {
  Push(Encode(
      [&](v1::Edit& edit) { edit.mutable_drop_section()->set_section(Text(section)); }));
  return *this;
}

EditList& EditList::Cast(DType dtype, const std::vector<std::string>& patterns,
                         std::string_view section) {
  Push(Encode([&](v1::Edit& edit) {
    edit.mutable_cast()->set_dtype(static_cast<v1::DType>(dtype));
    Append(patterns, edit.mutable_cast()->mutable_patterns());
    edit.mutable_cast()->set_section(Text(section));
  }));
  return *this;
}

EditList& EditList::SetRequiresGrad(bool requires_grad,
                                    const std::vector<std::string>& patterns) {
  Push(Encode([&](v1::Edit& edit) {
    edit.mutable_set_requires_grad()->set_requires_grad(requires_grad);
    Append(patterns, edit.mutable_set_requires_grad()->mutable_patterns());
  }));
  return *this;
}

EditList& EditList::TakeFrom(std::string_view checkpoint, std::string_view source,
                             std::string_view target) {
  Push(Encode([&](v1::Edit& edit) {
    edit.mutable_take_from()->set_checkpoint(Text(checkpoint));
    edit.mutable_take_from()->set_source(Text(source));
    edit.mutable_take_from()->set_target(Text(target));
  }));
  return *this;
}

EditList& EditList::Average(const std::vector<std::string>& checkpoints,
                            const std::vector<double>& coefficients,
                            const std::vector<std::string>& patterns) {
  Push(Encode([&](v1::Edit& edit) {
    auto* average = edit.mutable_average();
    Append(checkpoints, average->mutable_checkpoints());
    average->mutable_coefficients()->Add(coefficients.begin(), coefficients.end());
    Append(patterns, average->mutable_patterns());
  }));
  return *this;
}

EditList& EditList::MergeLora(double alpha, std::string_view checkpoint) {
  Push(Encode([&](v1::Edit& edit) {
    edit.mutable_merge_lora()->set_alpha(alpha);
    edit.mutable_merge_lora()->set_checkpoint(Text(checkpoint));
  }));
  return *this;
}

EditList& EditList::Untie() {
  if (encoded_.empty()) return *this;
  v1::Edit edit;
  ParseMessage(encoded_.back(), &edit);
  edit.set_untie(true);
  encoded_.back() = SerializeDeterministic(edit);
  return *this;
}

}  // namespace modelstore
