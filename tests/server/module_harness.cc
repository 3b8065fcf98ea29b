#include "tests/server/module_harness.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/tensors.h"
#include "proto/contract/architecture/text.h"
#include "server/modify/module_metadata.h"
#include "server/modify/optimizer_index.h"

namespace modelstore::server {
namespace {

using modify::ElementsOf;
using modify::FindEntry;

v1::Value* AddEntry(v1::Value& dict, const std::string& key) {
  auto* entry = dict.mutable_dict_value()->add_entries();
  entry->mutable_key()->set_string_value(key);
  return entry->mutable_value();
}

size_t ElementsIn(const std::vector<int64_t>& shape) {
  size_t elements = 1;
  for (const int64_t size : shape) elements *= static_cast<size_t>(size);
  return elements;
}

}  // namespace

ModuleTree Net(const std::vector<std::pair<std::string, std::string>>& children,
               const std::vector<std::string>& forward) {
  ModuleTree root;
  root.set_type("Net");
  for (const auto& [name, text] : children) {
    auto child = ParseModule("module", text);
    EXPECT_TRUE(child.ok()) << child.status();
    *root.add_children() = *std::move(child);
    root.mutable_children(root.children_size() - 1)->set_name(name);
  }
  for (const std::string& step : forward) root.add_forward(step);
  return root;
}

v1::Section ModuleEditTest::OptimizerSection(const Groups& groups) {
  v1::Section section;
  section.set_name(groups.section);
  v1::Value& state = *AddEntry(*section.mutable_value(), "state");
  state.mutable_dict_value();
  v1::Value& list = *AddEntry(*section.mutable_value(), "param_groups");
  int id = 0;
  for (const auto& keys : groups.keys) {
    v1::Value& group = *list.mutable_list_value()->add_values();
    for (const auto& [name, number] : groups.options) {
      AddEntry(group, name)->set_double_value(number);
    }
    auto& ids = *AddEntry(group, "params")->mutable_list_value();
    v1::ListValue names;
    for (const std::string& key : keys) {
      auto* entry = state.mutable_dict_value()->add_entries();
      entry->mutable_key()->set_int_value(id);
      const std::string path = absl::StrCat("state/", id, "/");
      AddEntry(*entry->mutable_value(), "step")->set_tensor_value(path + "step");
      AddEntry(*entry->mutable_value(), groups.field)
          ->set_tensor_value(path + groups.field);
      ids.add_values()->set_int_value(id++);
      names.add_values()->set_string_value(key);
    }
    if (groups.with_names) {
      *AddEntry(group, "param_names")->mutable_list_value() = std::move(names);
    }
  }
  return section;
}

void ModuleEditTest::SaveWithOptimizers(const ModuleTree& root,
                                        const std::vector<Groups>& optimizers,
                                        bool with_architecture) {
  auto wanted = TensorsOf(root);
  ASSERT_TRUE(wanted.ok());
  std::vector<TestTensor> tensors;
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const TensorSpec& spec : wanted->tensors) {
    const auto values = RandomFloats(ElementsIn(spec.shape), tensors.size() + 1);
    shapes[spec.key] = spec.shape;
    tensors.push_back(
        !spec.buffer ? Parameter(spec.key, spec.shape, values)
                     : Buffer(spec.key, static_cast<v1::DType>(spec.dtype), spec.shape,
                              MakeBytes(values.size() * ElementSize(spec.dtype), 1)));
  }
  for (const Groups& groups : optimizers) {
    int id = 0;
    for (const auto& keys : groups.keys) {
      for (const std::string& key : keys) {
        const std::string path = absl::StrCat("state/", id++, "/");
        tensors.push_back(
            MakeTensor(path + "step", v1::DTYPE_FLOAT32, {}, BytesOf<float>({7})));
        const auto values = RandomFloats(ElementsIn(shapes[key]), 100 + id);
        tensors.push_back(MakeTensor(path + groups.field, v1::DTYPE_FLOAT32, shapes[key],
                                     BytesOf(values)));
        for (size_t t = tensors.size() - 2; t < tensors.size(); ++t) {
          tensors[t].tensor.set_section(groups.section);
        }
      }
    }
  }
  std::vector<v1::SaveCheckpointRequest> requests(3);
  requests[0].set_parent("models/m");
  requests[0].set_create_model(true);
  if (with_architecture) {
    *requests[0].mutable_checkpoint()->mutable_architecture()->mutable_root() = root;
  }
  for (const TestTensor& tensor : tensors) {
    *requests[0].mutable_manifest()->add_tensors() = tensor.tensor;
    for (const auto& chunk : tensor.chunks) AddChunk(&requests[1], chunk);
  }
  if (with_metadata_) {
    v1::Section& section = *requests[0].mutable_manifest()->add_sections();
    section.set_name("model");
    for (auto& [path, dict] : modify::MetadataOf(root, "")) {
      auto* entry = section.mutable_metadata()->mutable_dict_value()->add_entries();
      entry->mutable_key()->set_string_value(path);
      *entry->mutable_value() = std::move(dict);
    }
  }
  for (const Groups& groups : optimizers) {
    if (groups.keys.empty()) continue;
    *requests[0].mutable_manifest()->add_sections() = OptimizerSection(groups);
  }
  requests[2].set_finish(true);
  auto saved = harness_.Save(requests);
  ASSERT_TRUE(saved.ok()) << saved.status();
}

void ModuleEditTest::SaveZeros(const ModuleTree& root) {
  constexpr int64_t kChunk = int64_t{4} << 20;
  auto wanted = TensorsOf(root);
  ASSERT_TRUE(wanted.ok());
  std::map<int64_t, std::string> digests;
  std::vector<v1::SaveCheckpointRequest> requests(1);
  requests[0].set_parent("models/m");
  requests[0].set_create_model(true);
  *requests[0].mutable_checkpoint()->mutable_architecture()->mutable_root() = root;
  for (const TensorSpec& spec : wanted->tensors) {
    v1::Tensor& tensor = *requests[0].mutable_manifest()->add_tensors();
    tensor.set_key(spec.key);
    tensor.set_dtype(v1::DTYPE_FLOAT32);
    tensor.mutable_shape()->Add(spec.shape.begin(), spec.shape.end());
    tensor.set_role(v1::TENSOR_ROLE_PARAMETER);
    tensor.set_requires_grad(true);
    v1::Piece& piece = *tensor.add_pieces();
    const auto bytes = static_cast<int64_t>(ElementsIn(spec.shape) * sizeof(float));
    piece.set_chunk_size_bytes(std::min(kChunk, bytes));
    for (int64_t at = 0; at < bytes; at += kChunk) {
      const int64_t size = std::min(kChunk, bytes - at);
      std::string& digest = digests[size];
      if (digest.empty()) {
        const std::string chunk(size, '\0');
        digest = DigestOf(chunk);
        AddChunk(&requests.emplace_back(), chunk);
      }
      // The vector may have grown.
      requests[0]
          .mutable_manifest()
          ->mutable_tensors(requests[0].manifest().tensors_size() - 1)
          ->mutable_pieces(0)
          ->mutable_chunk_digests()
          ->append(digest);
    }
  }
  requests.emplace_back().set_finish(true);
  auto saved = harness_.Save(requests);
  ASSERT_TRUE(saved.ok()) << saved.status();
}

const v1::Value* ModuleEditTest::Optimizer(const std::string& checkpoint,
                                           const std::string& section) {
  full_ = Full(checkpoint);
  for (const v1::Section& stored : full_.sections()) {
    if (stored.name() == section) return &stored.value();
  }
  return nullptr;
}

std::vector<std::vector<std::string>> ModuleEditTest::Names(const std::string& checkpoint,
                                                            const std::string& section) {
  std::vector<std::vector<std::string>> names;
  const v1::Value* optimizer = Optimizer(checkpoint, section);
  if (optimizer == nullptr) return names;
  for (const v1::Value& group : *ElementsOf(FindEntry(*optimizer, "param_groups"))) {
    names.emplace_back();
    const auto* ids = ElementsOf(FindEntry(group, "params"));
    const auto* texts = ElementsOf(FindEntry(group, "param_names"));
    for (int i = 0; i < ids->size(); ++i) {
      names.back().push_back(texts == nullptr ? absl::StrCat((*ids)[i].int_value())
                                              : (*texts)[i].string_value());
    }
  }
  return names;
}

std::string ModuleEditTest::StateOf(const std::string& checkpoint, const std::string& key,
                                    const std::string& field,
                                    const std::string& section) {
  const v1::Value* optimizer = Optimizer(checkpoint, section);
  if (optimizer == nullptr) return "none";
  int64_t id = -1;
  for (const v1::Value& group : *ElementsOf(FindEntry(*optimizer, "param_groups"))) {
    const auto* ids = ElementsOf(FindEntry(group, "params"));
    const auto* names = ElementsOf(FindEntry(group, "param_names"));
    for (int i = 0; i < ids->size(); ++i) {
      if ((*names)[i].string_value() == key) id = (*ids)[i].int_value();
    }
  }
  for (const auto& entry : FindEntry(*optimizer, "state")->dict_value().entries()) {
    if (entry.key().int_value() != id) continue;
    const v1::Value* value = FindEntry(entry.value(), field);
    return value == nullptr
               ? "none"
               : Bytes(checkpoint)[absl::StrCat(section, ":", value->tensor_value())];
  }
  return "none";
}

std::vector<std::string> ModuleEditTest::Metadata(const std::string& checkpoint) {
  std::vector<std::string> modules;
  full_ = Full(checkpoint);
  for (const v1::Section& section : full_.sections()) {
    if (section.name() != "model") continue;
    for (const auto& entry : section.metadata().dict_value().entries()) {
      const v1::Value* version = FindEntry(entry.value(), "version");
      modules.push_back(absl::StrCat(entry.key().string_value(), ": ",
                                     version == nullptr ? -1 : version->int_value()));
    }
  }
  return modules;
}

std::vector<std::string> ModuleEditTest::ModelKeys(const std::string& checkpoint) {
  std::vector<std::string> keys;
  for (const v1::Tensor& tensor : Tensors(checkpoint)) {
    if (tensor.section() == "model") keys.push_back(tensor.key());
  }
  return keys;
}

}  // namespace modelstore::server
