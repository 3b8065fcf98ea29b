#include "proto/contract/names.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/contract/errors.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

constexpr size_t kMaxModelId = 128;
constexpr size_t kMaxSectionId = 64;
constexpr size_t kMaxAlias = 63;
constexpr size_t kMaxKey = 1024;
constexpr size_t kMaxRequestId = 128;
constexpr size_t kMaxHolder = 128;
constexpr size_t kMaxUploadId = 64;

// What a message quotes of a bad name: enough to recognise it, printable.
std::string Quoted(absl::string_view text) {
  constexpr size_t kShown = 64;
  std::string out = "'";
  for (unsigned char c : text.substr(0, kShown)) {
    out.push_back(absl::ascii_isprint(c) ? static_cast<char>(c) : '?');
  }
  return absl::StrCat(out, text.size() > kShown ? "...'" : "'");
}

// [first][rest]{0,max-1}
template <typename First, typename Rest>
bool Matches(absl::string_view id, size_t max, First first, Rest rest) {
  if (id.empty() || id.size() > max || !first(id[0])) return false;
  for (char c : id.substr(1)) {
    if (!rest(c)) return false;
  }
  return true;
}

bool IsModelId(absl::string_view id) {
  return Matches(
      id, kMaxModelId, [](unsigned char c) { return absl::ascii_isalnum(c); },
      [](unsigned char c) {
        return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
      });
}

bool IsSectionId(absl::string_view id) {
  return Matches(
      id, kMaxSectionId,
      [](unsigned char c) { return absl::ascii_isalpha(c) || c == '_'; },
      [](unsigned char c) {
        return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
      });
}

bool IsAlias(absl::string_view id) {
  return id != "latest" &&
         Matches(
             id, kMaxAlias, [](unsigned char c) { return absl::ascii_islower(c); },
             [](unsigned char c) {
               return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
             });
}

bool IsHolder(absl::string_view holder) {
  return Matches(
      holder, kMaxHolder, [](unsigned char c) { return absl::ascii_isalnum(c); },
      [](unsigned char c) {
        return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-' || c == ':' ||
               c == '@';
      });
}

// C0 and C1 controls and DEL, at the front of `text`.
bool IsControl(absl::string_view text) {
  const unsigned char lead = text[0];
  return lead < 0x20 || lead == 0x7f ||
         (lead == 0xc2 && text.size() > 1 && static_cast<unsigned char>(text[1]) < 0xa0);
}

// Splits `models/{model}/{collection}/{id}`; false if it has another form.
bool SplitChild(absl::string_view name, absl::string_view collection,
                absl::string_view* model_id, absl::string_view* id) {
  if (!absl::ConsumePrefix(&name, "models/")) return false;
  const size_t slash = name.find('/');
  if (slash == absl::string_view::npos) return false;
  *model_id = name.substr(0, slash);
  name.remove_prefix(slash + 1);
  if (!absl::ConsumePrefix(&name, collection) || !absl::ConsumePrefix(&name, "/")) {
    return false;
  }
  *id = name;
  return IsModelId(*model_id);
}

// A version in its one canonical form: no sign, no leading zero, above 0.
std::optional<int64_t> ParseVersion(absl::string_view text) {
  int64_t version = 0;
  if (text.empty() || text[0] < '1' || text[0] > '9' ||
      !absl::SimpleAtoi(text, &version) || absl::StrCat(version) != text) {
    return std::nullopt;
  }
  return version;
}

}  // namespace

absl::Status ValidateModelId(absl::string_view field, absl::string_view id) {
  if (IsModelId(id)) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(Quoted(id),
                                          " is not a model id: letters, digits, '.', '_' "
                                          "and '-', a letter or digit first, at most ",
                                          kMaxModelId));
}

absl::Status ValidateSectionId(absl::string_view field, absl::string_view id) {
  if (IsSectionId(id)) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(Quoted(id),
                                          " is not a section id: letters, digits, '.', "
                                          "'_' and '-', a letter or '_' first, at most ",
                                          kMaxSectionId));
}

absl::Status ValidateAlias(absl::string_view field, absl::string_view alias) {
  if (IsAlias(alias)) return absl::OkStatus();
  return InvalidField(
      field,
      absl::StrCat(Quoted(alias),
                   " is not an alias: lower-case letters, digits and '-', a letter "
                   "first, at most ",
                   kMaxAlias, ", not 'latest'"));
}

absl::Status ValidateKey(absl::string_view field, absl::string_view key) {
  if (key.empty() || key.size() > kMaxKey) {
    return InvalidField(
        field, absl::StrCat("a key has 1 to ", kMaxKey, " bytes, not ", key.size()));
  }
  for (size_t at = 0; at < key.size();) {
    const size_t length = Utf8SequenceLength(key.substr(at));
    if (length == 0 || IsControl(key.substr(at))) {
      return InvalidField(field, absl::StrCat("key ", Quoted(key), " has at byte ", at,
                                              " a control character or broken UTF-8"));
    }
    at += length;
  }
  return absl::OkStatus();
}

absl::Status ValidateRequestId(absl::string_view field, absl::string_view id) {
  if (id.size() > kMaxRequestId) {
    return InvalidField(field, absl::StrCat("a request id has at most ", kMaxRequestId,
                                            " bytes, not ", id.size()));
  }
  for (unsigned char c : id) {
    if (!absl::ascii_isprint(c)) {
      return InvalidField(field, "a request id has printable ASCII characters alone");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateHolder(absl::string_view field, absl::string_view holder) {
  if (IsHolder(holder)) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(Quoted(holder),
                                          " is not a holder: letters, digits, '.', '_', "
                                          "'-', ':' and '@', a letter or digit first, at "
                                          "most ",
                                          kMaxHolder));
}

absl::StatusOr<std::string> ParseModelName(absl::string_view field,
                                           absl::string_view name) {
  absl::string_view id = name;
  if (!absl::ConsumePrefix(&id, "models/") || !IsModelId(id)) {
    return InvalidField(field,
                        absl::StrCat(Quoted(name), " is not of the form models/{model}"));
  }
  return std::string(id);
}

absl::StatusOr<CheckpointName> ParseCheckpointName(absl::string_view field,
                                                   absl::string_view name) {
  absl::string_view model_id, last;
  if (SplitChild(name, "checkpoints", &model_id, &last)) {
    CheckpointName parsed;
    parsed.model_id = std::string(model_id);
    parsed.version = ParseVersion(last);
    if (parsed.version.has_value()) return parsed;
    if (last == "latest" || IsAlias(last)) {
      parsed.alias = std::string(last);
      return parsed;
    }
  }
  return InvalidField(
      field, absl::StrCat(Quoted(name),
                          " is not of the form models/{model}/checkpoints/{version}, the "
                          "version a number above 0, an alias, or 'latest'"));
}

absl::StatusOr<UploadName> ParseUploadName(absl::string_view field,
                                           absl::string_view name) {
  absl::string_view model_id, id;
  const auto word = [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '-';
  };
  if (!SplitChild(name, "uploads", &model_id, &id) ||
      !Matches(id, kMaxUploadId, word, word)) {
    return InvalidField(
        field, absl::StrCat(Quoted(name),
                            " is not of the form models/{model}/uploads/{upload}"));
  }
  return UploadName{std::string(model_id), std::string(id)};
}

absl::StatusOr<AliasName> ParseAliasName(absl::string_view field,
                                         absl::string_view name) {
  absl::string_view model_id, alias;
  if (!SplitChild(name, "aliases", &model_id, &alias)) {
    return InvalidField(
        field,
        absl::StrCat(Quoted(name), " is not of the form models/{model}/aliases/{alias}"));
  }
  if (auto status = ValidateAlias(field, alias); !status.ok()) return status;
  return AliasName{std::string(model_id), std::string(alias)};
}

absl::StatusOr<LeaseName> ParseLeaseName(absl::string_view field,
                                         absl::string_view name) {
  absl::string_view model_id, rest;
  if (SplitChild(name, "checkpoints", &model_id, &rest)) {
    const size_t slash = std::min(rest.find('/'), rest.size());
    const std::optional<int64_t> version = ParseVersion(rest.substr(0, slash));
    absl::string_view holder = rest.substr(slash);
    if (version.has_value() && absl::ConsumePrefix(&holder, "/leases/") &&
        IsHolder(holder)) {
      return LeaseName{std::string(model_id), *version, std::string(holder)};
    }
  }
  return InvalidField(
      field, absl::StrCat(Quoted(name),
                          " is not of the form models/{model}/checkpoints/{version}/"
                          "leases/{holder}, the version a number above 0"));
}

TensorName ParseTensorName(absl::string_view text) {
  const size_t colon = text.find(':');
  if (colon != absl::string_view::npos && IsSectionId(text.substr(0, colon))) {
    return {std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
  }
  return {"model", std::string(text)};
}

std::string ModelName(absl::string_view model_id) {
  return absl::StrCat("models/", model_id);
}

std::string CheckpointNameOf(absl::string_view model_id, int64_t version) {
  return absl::StrCat("models/", model_id, "/checkpoints/", version);
}

std::string UploadNameOf(absl::string_view model_id, absl::string_view upload_id) {
  return absl::StrCat("models/", model_id, "/uploads/", upload_id);
}

std::string AliasNameOf(absl::string_view model_id, absl::string_view alias) {
  return absl::StrCat("models/", model_id, "/aliases/", alias);
}

std::string LeaseNameOf(absl::string_view model_id, int64_t version,
                        absl::string_view holder) {
  return absl::StrCat("models/", model_id, "/checkpoints/", version, "/leases/", holder);
}

std::string TensorNameOf(absl::string_view section, absl::string_view key) {
  return absl::StrCat(section, ":", key);
}

std::string EscapeKeyElement(absl::string_view element) {
  std::string out;
  out.reserve(element.size());
  for (char c : element) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out.push_back(c);
    }
  }
  return out;
}

absl::StatusOr<std::string> UnescapeKeyElement(absl::string_view element) {
  std::string out;
  out.reserve(element.size());
  for (size_t i = 0; i < element.size(); ++i) {
    if (element[i] == '/') {
      return absl::InvalidArgumentError("an element of a key holds no '/': write '~1'");
    }
    if (element[i] != '~') {
      out.push_back(element[i]);
      continue;
    }
    const char code = ++i < element.size() ? element[i] : '\0';
    if (code != '0' && code != '1') {
      return absl::InvalidArgumentError("'~' in a key is followed by '0' or '1'");
    }
    out.push_back(code == '0' ? '~' : '/');
  }
  return out;
}

absl::Status ValidateDevice(absl::string_view field, absl::string_view device) {
  if (device.empty() || device == "cpu" || device == "cuda") return absl::OkStatus();
  absl::string_view index = device;
  int number = 0;
  if (absl::ConsumePrefix(&index, "cuda:") && !index.empty() && index.size() <= 3 &&
      absl::SimpleAtoi(index, &number) && absl::StrCat(number) == index && number >= 0) {
    return absl::OkStatus();
  }
  return InvalidField(
      field, absl::StrCat(Quoted(device), " is not a device: 'cpu', 'cuda' or 'cuda:N'"));
}

}  // namespace modelstore
