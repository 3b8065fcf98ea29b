// The table behind FindLeaf(), and templates for its entries. The entries are in
// architecture_leaves*.cc.
#pragma once

#include <torch/torch.h>

#include <concepts>
#include <memory>
#include <tuple>
#include <typeindex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "client/torch/architecture_leaves.h"
#include "client/torch/architecture_options.h"

namespace modelstore::torch_internal::leaves {

namespace nn = torch::nn;

// The first output of a module that returns a tensor or a tuple.
inline torch::Tensor FirstOf(torch::Tensor tensor) { return tensor; }
template <typename... T>
torch::Tensor FirstOf(std::tuple<torch::Tensor, T...> outputs) {
  return std::get<0>(std::move(outputs));
}

// Returns the tensor members of a module of class Impl. The list has every tensor member
// of LibTorch's modules; each class has some of them.
template <typename Impl>
std::vector<Member> MembersOf(const nn::Module& any) {
  std::vector<Member> members;
  const auto& module = dynamic_cast<const Impl&>(any);
#define MODELSTORE_MEMBER(member)                                          \
  if constexpr (requires {                                                 \
                  { module.member } -> std::convertible_to<torch::Tensor>; \
                })                                                         \
  members.push_back({#member, module.member})
  MODELSTORE_MEMBER(weight);
  MODELSTORE_MEMBER(bias);
  MODELSTORE_MEMBER(running_mean);
  MODELSTORE_MEMBER(running_var);
  MODELSTORE_MEMBER(num_batches_tracked);
  MODELSTORE_MEMBER(weight_ih);
  MODELSTORE_MEMBER(weight_hh);
  MODELSTORE_MEMBER(bias_ih);
  MODELSTORE_MEMBER(bias_hh);
  MODELSTORE_MEMBER(in_proj_weight);
  MODELSTORE_MEMBER(in_proj_bias);
  MODELSTORE_MEMBER(bias_k);
  MODELSTORE_MEMBER(bias_v);
  MODELSTORE_MEMBER(q_proj_weight);
  MODELSTORE_MEMBER(k_proj_weight);
  MODELSTORE_MEMBER(v_proj_weight);
  MODELSTORE_MEMBER(pos_weight);
  MODELSTORE_MEMBER(_random_samples);
#undef MODELSTORE_MEMBER
  return members;
}

// Wraps a module; `forward` is set if Impl can be called with one tensor.
template <typename Impl>
Leaf Runnable(std::shared_ptr<Impl> module) {
  Leaf leaf{module, {}};
  if constexpr (requires(torch::Tensor x) { module->forward(x); }) {
    leaf.forward = [impl = module.get()](const torch::Tensor& x) {
      return FirstOf(impl->forward(x));
    };
  }
  return leaf;
}

// Built once and immutable afterwards. by_class points into by_name, whose elements do
// not move.
class Table {
 public:
  Table();

  std::unordered_map<std::string_view, LeafType> by_name;
  std::unordered_map<std::type_index, const LeafType*> by_class;

 private:
  // Adds a class. `read` converts the module's options to NamedValues, `make` converts
  // Arguments to options.
  template <typename Impl, typename Read, typename Make>
  void Add(const char* name, Read read, Make make) {
    LeafType& type = by_name[name];
    type.name = name;
    type.read = [read](const nn::Module& module) -> std::optional<NamedValues> {
      return read(dynamic_cast<const Impl&>(module).options);
    };
    type.build = [make](const ModuleTree& node) -> Leaf {
      const Arguments arguments(node);
      auto options = make(arguments);
      if (arguments.unfit()) return {};
      return Runnable(std::make_shared<Impl>(options));
    };
    type.members = &MembersOf<Impl>;
    by_class.emplace(typeid(Impl), &type);
  }

  // Adds a class without options. Python's `inplace` argument has no counterpart there.
  template <typename Impl>
  void AddPlain(const char* name) {
    LeafType& type = by_name[name];
    type.name = name;
    type.read = [](const nn::Module&) { return NamedValues(); };
    type.build = [](const ModuleTree&) { return Runnable(std::make_shared<Impl>()); };
    type.members = &MembersOf<Impl>;
    by_class.emplace(typeid(Impl), &type);
  }

  template <typename Impl, typename Options>
  void AddInplace(const char* name) {
    Add<Impl>(
        name,
        [](const auto& o) {
          return NamedValues{{"inplace", V(o.inplace())}};
        },
        [](const Arguments& a) { return Options(a.Flag("inplace")); });
  }

  template <typename Impl, typename Options>
  void AddDropout(const char* name) {
    Add<Impl>(
        name,
        [](const auto& o) {
          return NamedValues{{"p", V(o.p())}, {"inplace", V(o.inplace())}};
        },
        [](const Arguments& a) {
          return Options(a.Number("p")).inplace(a.Flag("inplace"));
        });
  }

  template <typename Impl, typename Options>
  void AddDim(const char* name) {
    Add<Impl>(
        name,
        [](const auto& o) {
          return NamedValues{{"dim", V(o.dim())}};
        },
        [](const Arguments& a) { return Options(a.Int("dim")); });
  }

  template <size_t D, typename Conv, typename Transposed>
  void AddConvolutions(const char* conv, const char* transposed);
  template <typename Batch, typename Instance>
  void AddNorms(const char* batch, const char* instance);
  template <size_t D, typename Max, typename Avg>
  void AddPools(const char* max, const char* avg);
  template <typename Avg, typename AvgOptions, typename Max, typename MaxOptions>
  void AddAdaptivePools(const char* avg, const char* max);
  template <size_t D, typename Reflection, typename Replication, typename Constant>
  void AddPads(const char* reflection, const char* replication, const char* constant);
  template <size_t D, typename Lp>
  void AddLpPool(const char* name);
  template <typename Impl, typename Options>
  void AddRecurrent(const char* name);
  template <typename Impl, typename Options>
  void AddCell(const char* name);
  void AddLinear();
  void AddRecurrentAll();
  void AddNormalisations();
  void AddEmbeddings();
  void AddSpatial();
  void AddActivations();
  void AddShapes();
  void AddUpsample();
};

}  // namespace modelstore::torch_internal::leaves
