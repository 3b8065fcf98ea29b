#include "client/torch/architecture_leaf_table.h"

namespace modelstore::torch_internal {

namespace leaves {

void Table::AddLinear() {
  Add<nn::LinearImpl>(
      "Linear",
      [](const auto& o) {
        return NamedValues{{"in_features", V(o.in_features())},
                           {"out_features", V(o.out_features())},
                           {"bias", V(o.bias())}};
      },
      [](const Arguments& a) {
        return nn::LinearOptions(a.Int("in_features"), a.Int("out_features"))
            .bias(a.Flag("bias"));
      });
  Add<nn::BilinearImpl>(
      "Bilinear",
      [](const auto& o) {
        return NamedValues{{"in1_features", V(o.in1_features())},
                           {"in2_features", V(o.in2_features())},
                           {"out_features", V(o.out_features())},
                           {"bias", V(o.bias())}};
      },
      [](const Arguments& a) {
        return nn::BilinearOptions(a.Int("in1_features"), a.Int("in2_features"),
                                   a.Int("out_features"))
            .bias(a.Flag("bias"));
      });
  AddPlain<nn::IdentityImpl>("Identity");
}

template <typename Batch, typename Instance>
void Table::AddNorms(const char* batch, const char* instance) {
  const auto read = [](const auto& o) {
    return NamedValues{{"num_features", V(o.num_features())},
                       {"eps", V(o.eps())},
                       {"momentum", V(o.momentum())},
                       {"affine", V(o.affine())},
                       {"track_running_stats", V(o.track_running_stats())}};
  };
  Add<Batch>(batch, read, [](const Arguments& a) {
    nn::BatchNormOptions options(a.Int("num_features"));
    options.eps(a.Number("eps")).affine(a.Flag("affine"));
    options.track_running_stats(a.Flag("track_running_stats"));
    // None means a cumulative average: an empty optional.
    if (a.None("momentum")) {
      options.momentum() = std::decay_t<decltype(options.momentum())>();
    } else {
      options.momentum(a.Number("momentum"));
    }
    return options;
  });
  Add<Instance>(instance, read, [](const Arguments& a) {
    return nn::InstanceNormOptions(a.Int("num_features"))
        .eps(a.Number("eps"))
        .momentum(a.Number("momentum"))
        .affine(a.Flag("affine"))
        .track_running_stats(a.Flag("track_running_stats"));
  });
}

void Table::AddNormalisations() {
  AddNorms<nn::BatchNorm1dImpl, nn::InstanceNorm1dImpl>("BatchNorm1d", "InstanceNorm1d");
  AddNorms<nn::BatchNorm2dImpl, nn::InstanceNorm2dImpl>("BatchNorm2d", "InstanceNorm2d");
  AddNorms<nn::BatchNorm3dImpl, nn::InstanceNorm3dImpl>("BatchNorm3d", "InstanceNorm3d");
  Add<nn::GroupNormImpl>(
      "GroupNorm",
      [](const auto& o) {
        return NamedValues{{"num_groups", V(o.num_groups())},
                           {"num_channels", V(o.num_channels())},
                           {"eps", V(o.eps())},
                           {"affine", V(o.affine())}};
      },
      [](const Arguments& a) {
        return nn::GroupNormOptions(a.Int("num_groups"), a.Int("num_channels"))
            .eps(a.Number("eps"))
            .affine(a.Flag("affine"));
      });
  Add<nn::LayerNormImpl>(
      "LayerNorm",
      [](const auto& o) {
        return NamedValues{{"normalized_shape", V(o.normalized_shape())},
                           {"eps", V(o.eps())},
                           {"elementwise_affine", V(o.elementwise_affine())}};
      },
      [](const Arguments& a) {
        return nn::LayerNormOptions(a.Ints("normalized_shape"))
            .eps(a.Number("eps"))
            .elementwise_affine(a.Flag("elementwise_affine"));
      });
  const auto read = [](const auto& o) {
    return NamedValues{{"size", V(o.size())},
                       {"alpha", V(o.alpha())},
                       {"beta", V(o.beta())},
                       {"k", V(o.k())}};
  };
  Add<nn::LocalResponseNormImpl>("LocalResponseNorm", read, [](const Arguments& a) {
    return nn::LocalResponseNormOptions(a.Int("size"))
        .alpha(a.Number("alpha"))
        .beta(a.Number("beta"))
        .k(a.Number("k"));
  });
  Add<nn::CrossMapLRN2dImpl>("CrossMapLRN2d", read, [](const Arguments& a) {
    return nn::CrossMapLRN2dOptions(a.Int("size"))
        .alpha(a.Number("alpha"))
        .beta(a.Number("beta"))
        .k(a.Int("k"));
  });
}

// Options that Embedding and EmbeddingBag share.
template <typename Options>
NamedValues ReadEmbedding(const Options& o) {
  return {{"num_embeddings", V(o.num_embeddings())},
          {"embedding_dim", V(o.embedding_dim())},
          {"padding_idx", V(o.padding_idx())},
          {"max_norm", V(o.max_norm())},
          {"norm_type", V(o.norm_type())},
          {"scale_grad_by_freq", V(o.scale_grad_by_freq())},
          {"sparse", V(o.sparse())}};
}

template <typename Options>
Options MakeEmbedding(const Arguments& a) {
  Options options(a.Int("num_embeddings"), a.Int("embedding_dim"));
  if (!a.None("padding_idx")) options.padding_idx(a.Int("padding_idx"));
  if (!a.None("max_norm")) options.max_norm(a.Number("max_norm"));
  options.norm_type(a.Number("norm_type")).sparse(a.Flag("sparse"));
  options.scale_grad_by_freq(a.Flag("scale_grad_by_freq"));
  return options;
}

void Table::AddEmbeddings() {
  Add<nn::EmbeddingImpl>(
      "Embedding", [](const auto& o) { return ReadEmbedding(o); },
      MakeEmbedding<nn::EmbeddingOptions>);
  Add<nn::EmbeddingBagImpl>(
      "EmbeddingBag",
      [](const auto& o) {
        NamedValues values = ReadEmbedding(o);
        values.emplace_back("mode", Word(o.mode()));
        values.emplace_back("include_last_offset", V(o.include_last_offset()));
        return values;
      },
      [](const Arguments& a) {
        auto options = MakeEmbedding<nn::EmbeddingBagOptions>(a);
        options.include_last_offset(a.Flag("include_last_offset"));
        // LibTorch's default is mean.
        if (a.Text("mode") == "sum") options.mode(torch::kSum);
        if (a.Text("mode") == "max") options.mode(torch::kMax);
        return options;
      });
}

// RNN, LSTM and GRU. Only RNN has a nonlinearity (default tanh), and only LSTM has a
// proj_size in LibTorch.
template <typename Impl, typename Options>
void Table::AddRecurrent(const char* name) {
  Add<Impl>(
      name,
      [](const auto& o) {
        NamedValues values = {
            {"input_size", V(o.input_size())},      {"hidden_size", V(o.hidden_size())},
            {"num_layers", V(o.num_layers())},      {"bias", V(o.bias())},
            {"batch_first", V(o.batch_first())},    {"dropout", V(o.dropout())},
            {"bidirectional", V(o.bidirectional())}};
        if constexpr (requires { o.proj_size(); }) {
          values.emplace_back("proj_size", V(o.proj_size()));
        }
        if constexpr (requires { o.nonlinearity(); }) {
          values.emplace_back("nonlinearity", Word(o.nonlinearity()));
        }
        return values;
      },
      [](const Arguments& a) {
        Options options(a.Int("input_size"), a.Int("hidden_size"));
        options.num_layers(a.Int("num_layers")).bias(a.Flag("bias"));
        options.batch_first(a.Flag("batch_first")).dropout(a.Number("dropout"));
        options.bidirectional(a.Flag("bidirectional"));
        if constexpr (requires { options.proj_size(); }) {
          options.proj_size(a.Int("proj_size"));
        }
        if constexpr (requires { options.nonlinearity(); }) {
          if (a.Text("nonlinearity") == "relu") options.nonlinearity(torch::kReLU);
        }
        return options;
      });
}

template <typename Impl, typename Options>
void Table::AddCell(const char* name) {
  Add<Impl>(
      name,
      [](const auto& o) {
        NamedValues values = {{"input_size", V(o.input_size())},
                              {"hidden_size", V(o.hidden_size())},
                              {"bias", V(o.bias())}};
        if constexpr (requires { o.nonlinearity(); }) {
          values.emplace_back("nonlinearity", Word(o.nonlinearity()));
        }
        return values;
      },
      [](const Arguments& a) {
        Options options(a.Int("input_size"), a.Int("hidden_size"));
        options.bias(a.Flag("bias"));
        if constexpr (requires { options.nonlinearity(); }) {
          if (a.Text("nonlinearity") == "relu") options.nonlinearity(torch::kReLU);
        }
        return options;
      });
}

void Table::AddRecurrentAll() {
  AddRecurrent<nn::RNNImpl, nn::RNNOptions>("RNN");
  AddRecurrent<nn::LSTMImpl, nn::LSTMOptions>("LSTM");
  AddRecurrent<nn::GRUImpl, nn::GRUOptions>("GRU");
  AddCell<nn::RNNCellImpl, nn::RNNCellOptions>("RNNCell");
  AddCell<nn::LSTMCellImpl, nn::LSTMCellOptions>("LSTMCell");
  AddCell<nn::GRUCellImpl, nn::GRUCellOptions>("GRUCell");
}

Table::Table() {
  AddLinear();
  AddSpatial();
  AddNormalisations();
  AddEmbeddings();
  AddRecurrentAll();
  AddActivations();
  AddShapes();
  AddUpsample();
}

// Never destroyed: it may be used during the exit of the process.
const Table& TheTable() {
  static const auto* const table = new Table;
  return *table;
}

}  // namespace leaves

const LeafType* FindLeaf(std::string_view type) {
  const auto& by_name = leaves::TheTable().by_name;
  const auto found = by_name.find(type);
  return found == by_name.end() ? nullptr : &found->second;
}

const LeafType* FindLeaf(const torch::nn::Module& module) {
  const auto& by_class = leaves::TheTable().by_class;
  const auto found = by_class.find(typeid(module));
  return found == by_class.end() ? nullptr : found->second;
}

}  // namespace modelstore::torch_internal
