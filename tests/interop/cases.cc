#include "tests/interop/cases.h"

#include <google/protobuf/util/json_util.h>
#include <stdlib.h>

#include <cstdio>
#include <fstream>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/internal/value_codec.h"
#include "client/torch/element_type.h"

namespace modelstore::interop {
namespace {

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::abort();
}

Value ParseValue(const std::string& json) {
  v1::Value message;
  if (!google::protobuf::util::JsonStringToMessage(json, &message).ok()) {
    Die("not a modelstore.v1.Value: " + json);
  }
  absl::StatusOr<Value> value = internal::DecodeValue(message);
  if (!value.ok()) Die(value.status().ToString());
  return *std::move(value);
}

// KEY DTYPE SHAPE HEX; the key may have blanks.
std::pair<std::string, torch::Tensor> ParseTensor(const std::string& text) {
  std::vector<std::string> words = absl::StrSplit(text, ' ');
  while (words.size() > 4) {
    words[0] += " " + words[1];
    words.erase(words.begin() + 1);
  }
  if (words.size() != 4) Die("not a tensor: " + text);
  std::vector<int64_t> shape;
  for (absl::string_view size : absl::StrSplit(words[2], ',')) {
    int64_t number = 0;
    if (absl::SimpleAtoi(size, &number)) shape.push_back(number);
  }
  const std::string bytes = words[3] == "-" ? "" : absl::HexStringToBytes(words[3]);
  const auto type = words[1] == "int64" ? torch::kLong : torch::kFloat;
  torch::Tensor tensor = torch::zeros(shape, type);
  if (tensor.nbytes() != bytes.size()) Die("another size: " + text);
  std::copy(bytes.begin(), bytes.end(), static_cast<char*>(tensor.data_ptr()));
  return {words[0], tensor};
}

void Add(const std::string& word, const std::string& rest, Case& into) {
  if (word == "metadata") {
    into.metadata = ParseValue(rest);
  } else if (word == "tensor") {
    into.tensors.push_back(ParseTensor(rest));
  } else if (word == "after") {
    into.after.push_back(ParseTensor(rest));
  } else if (word == "missing") {
    into.missing.push_back(rest);
  } else if (word == "unexpected") {
    into.unexpected.push_back(rest);
  } else if (word == "mismatch") {
    into.mismatch.push_back(rest);
  } else if (word == "value") {
    const std::pair<std::string, std::string> tree =
        absl::StrSplit(rest, absl::MaxSplits(' ', 1));
    into.trees[tree.first] = ParseValue(tree.second);
  } else {
    Die("unknown record: " + word);
  }
}

}  // namespace

std::vector<Case> AskPython(const std::string& what) {
  char folder[] = "/tmp/modelstore-interop-XXXXXX";
  if (mkdtemp(folder) == nullptr) Die("no temporary folder");
  const std::string file = absl::StrCat(folder, "/cases.txt");
  const std::string command = absl::StrCat(STATE_DICTS_PY, " ", what, " ", folder);
  if (std::system(command.c_str()) != 0) {
    Die(command + " failed; deploy/install-deps --peer brings Python's PyTorch");
  }
  std::vector<Case> cases;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const std::pair<std::string, std::string> record =
        absl::StrSplit(line, absl::MaxSplits(' ', 1));
    if (record.first == "case") {
      const std::pair<std::string, std::string> names =
          absl::StrSplit(record.second, ' ');
      Case& added = cases.emplace_back();
      added.name = names.first;
      added.module = names.second;
    } else {
      Add(record.first, record.second, cases.back());
    }
  }
  std::remove(file.c_str());
  std::remove(folder);
  return cases;
}

ValueTree TreeOf(const Case& c, const std::string& name) {
  ValueTree tree;
  tree.value = c.trees.at(name);
  for (const auto& [key, tensor] : c.tensors) {
    absl::string_view path = key;
    if (absl::ConsumePrefix(&path, absl::StrCat(name, ":"))) {
      tree.tensors[std::string(path)] = tensor;
    }
  }
  return tree;
}

void Blank(torch::nn::Module& module) {
  const torch::NoGradGuard no_grad;
  for (auto& [key, tensor] : GetStateDict(module)) {
    tensor.fill_(tensor.is_floating_point() ? 0.25 : 0);
  }
}

}  // namespace modelstore::interop
