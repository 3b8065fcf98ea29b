// Modules that only change values or the shape: activations, dropouts, folds.
#include "client/torch/architecture_leaf_table.h"

namespace modelstore::torch_internal::leaves {

void Table::AddActivations() {
  AddInplace<nn::ReLUImpl, nn::ReLUOptions>("ReLU");
  AddInplace<nn::ReLU6Impl, nn::ReLU6Options>("ReLU6");
  AddInplace<nn::SELUImpl, nn::SELUOptions>("SELU");
  AddPlain<nn::SiLUImpl>("SiLU");
  AddPlain<nn::MishImpl>("Mish");
  AddPlain<nn::SigmoidImpl>("Sigmoid");
  AddPlain<nn::LogSigmoidImpl>("LogSigmoid");
  AddPlain<nn::SoftsignImpl>("Softsign");
  AddPlain<nn::TanhImpl>("Tanh");
  AddPlain<nn::TanhshrinkImpl>("Tanhshrink");
  AddPlain<nn::Softmax2dImpl>("Softmax2d");
  AddDropout<nn::DropoutImpl, nn::DropoutOptions>("Dropout");
  AddDropout<nn::Dropout2dImpl, nn::DropoutOptions>("Dropout2d");
  AddDropout<nn::Dropout3dImpl, nn::DropoutOptions>("Dropout3d");
  AddDropout<nn::AlphaDropoutImpl, nn::DropoutOptions>("AlphaDropout");
  AddDropout<nn::FeatureAlphaDropoutImpl, nn::DropoutOptions>("FeatureAlphaDropout");
  AddDim<nn::SoftmaxImpl, nn::SoftmaxOptions>("Softmax");
  AddDim<nn::SoftminImpl, nn::SoftminOptions>("Softmin");
  AddDim<nn::LogSoftmaxImpl, nn::LogSoftmaxOptions>("LogSoftmax");
  AddDim<nn::GLUImpl, nn::GLUOptions>("GLU");
  const auto alpha = [](const auto& o) {
    return NamedValues{{"alpha", V(o.alpha())}, {"inplace", V(o.inplace())}};
  };
  Add<nn::ELUImpl>("ELU", alpha, [](const Arguments& a) {
    return nn::ELUOptions().alpha(a.Number("alpha")).inplace(a.Flag("inplace"));
  });
  Add<nn::CELUImpl>("CELU", alpha, [](const Arguments& a) {
    return nn::CELUOptions().alpha(a.Number("alpha")).inplace(a.Flag("inplace"));
  });
  const auto lambda = [](const auto& o) { return NamedValues{{"lambd", V(o.lambda())}}; };
  Add<nn::HardshrinkImpl>("Hardshrink", lambda, [](const Arguments& a) {
    return nn::HardshrinkOptions(a.Number("lambd"));
  });
  Add<nn::SoftshrinkImpl>("Softshrink", lambda, [](const Arguments& a) {
    return nn::SoftshrinkOptions(a.Number("lambd"));
  });
  Add<nn::LeakyReLUImpl>(
      "LeakyReLU",
      [](const auto& o) {
        return NamedValues{{"negative_slope", V(o.negative_slope())},
                           {"inplace", V(o.inplace())}};
      },
      [](const Arguments& a) {
        return nn::LeakyReLUOptions()
            .negative_slope(a.Number("negative_slope"))
            .inplace(a.Flag("inplace"));
      });
  Add<nn::RReLUImpl>(
      "RReLU",
      [](const auto& o) {
        return NamedValues{{"lower", V(o.lower())},
                           {"upper", V(o.upper())},
                           {"inplace", V(o.inplace())}};
      },
      [](const Arguments& a) {
        return nn::RReLUOptions()
            .lower(a.Number("lower"))
            .upper(a.Number("upper"))
            .inplace(a.Flag("inplace"));
      });
  Add<nn::HardtanhImpl>(
      "Hardtanh",
      [](const auto& o) {
        return NamedValues{{"min_val", V(o.min_val())},
                           {"max_val", V(o.max_val())},
                           {"inplace", V(o.inplace())}};
      },
      [](const Arguments& a) {
        return nn::HardtanhOptions()
            .min_val(a.Number("min_val"))
            .max_val(a.Number("max_val"))
            .inplace(a.Flag("inplace"));
      });
  Add<nn::ThresholdImpl>(
      "Threshold",
      [](const auto& o) {
        return NamedValues{{"threshold", V(o.threshold())},
                           {"value", V(o.value())},
                           {"inplace", V(o.inplace())}};
      },
      [](const Arguments& a) {
        return nn::ThresholdOptions(a.Number("threshold"), a.Number("value"))
            .inplace(a.Flag("inplace"));
      });
  Add<nn::PReLUImpl>(
      "PReLU",
      [](const auto& o) {
        return NamedValues{{"num_parameters", V(o.num_parameters())},
                           {"init", V(o.init())}};
      },
      [](const Arguments& a) {
        return nn::PReLUOptions()
            .num_parameters(a.Int("num_parameters"))
            .init(a.Number("init"));
      });
  Add<nn::SoftplusImpl>(
      "Softplus",
      [](const auto& o) {
        return NamedValues{{"beta", V(o.beta())}, {"threshold", V(o.threshold())}};
      },
      [](const Arguments& a) {
        return nn::SoftplusOptions()
            .beta(a.Number("beta"))
            .threshold(a.Number("threshold"));
      });
  Add<nn::GELUImpl>(
      "GELU",
      [](const auto& o) {
        return NamedValues{{"approximate", V(o.approximate())}};
      },
      [](const Arguments& a) {
        return nn::GELUOptions().approximate(a.Text("approximate"));
      });
}

namespace {

// Newer versions of LibTorch have no named dimensions.
template <typename Options>
bool HasNamedDimension(const Options& o) {
  if constexpr (requires { o.dimname(); }) {
    return !o.dimname().empty();
  } else {
    return false;
  }
}

}  // namespace

void Table::AddShapes() {
  Add<nn::FlattenImpl>(
      "Flatten",
      [](const auto& o) {
        return NamedValues{{"start_dim", V(o.start_dim())}, {"end_dim", V(o.end_dim())}};
      },
      [](const Arguments& a) {
        return nn::FlattenOptions()
            .start_dim(a.Int("start_dim"))
            .end_dim(a.Int("end_dim"));
      });
  Add<nn::UnflattenImpl>(
      "Unflatten",
      [](const auto& o) {
        return NamedValues{{"dim", V(o.dim())}, {"unflattened_size", V(o.sizes())}};
      },
      [](const Arguments& a) {
        return nn::UnflattenOptions(a.Int("dim"), a.Ints("unflattened_size"));
      });
  // A named dimension is not an integer and cannot be stored.
  by_name["Unflatten"].read = [read = by_name["Unflatten"].read](
                                  const nn::Module& m) -> std::optional<NamedValues> {
    if (HasNamedDimension(dynamic_cast<const nn::UnflattenImpl&>(m).options)) return {};
    return read(m);
  };
  Add<nn::PixelShuffleImpl>(
      "PixelShuffle",
      [](const auto& o) {
        return NamedValues{{"upscale_factor", V(o.upscale_factor())}};
      },
      [](const Arguments& a) {
        return nn::PixelShuffleOptions(a.Int("upscale_factor"));
      });
  Add<nn::PixelUnshuffleImpl>(
      "PixelUnshuffle",
      [](const auto& o) {
        return NamedValues{{"downscale_factor", V(o.downscale_factor())}};
      },
      [](const Arguments& a) {
        return nn::PixelUnshuffleOptions(a.Int("downscale_factor"));
      });
  const auto unfold = [](const auto& o) {
    return NamedValues{{"kernel_size", V(o.kernel_size())},
                       {"dilation", V(o.dilation())},
                       {"padding", V(o.padding())},
                       {"stride", V(o.stride())}};
  };
  Add<nn::FoldImpl>(
      "Fold",
      [unfold](const auto& o) {
        NamedValues values = unfold(o);
        values.emplace_back("output_size", V(o.output_size()));
        return values;
      },
      [](const Arguments& a) {
        return nn::FoldOptions(a.Sizes<2>("output_size"), a.Sizes<2>("kernel_size"))
            .dilation(a.Sizes<2>("dilation"))
            .padding(a.Sizes<2>("padding"))
            .stride(a.Sizes<2>("stride"));
      });
  Add<nn::UnfoldImpl>("Unfold", unfold, [](const Arguments& a) {
    return nn::UnfoldOptions(a.Sizes<2>("kernel_size"))
        .dilation(a.Sizes<2>("dilation"))
        .padding(a.Sizes<2>("padding"))
        .stride(a.Sizes<2>("stride"));
  });
}

namespace {

// LibTorch's default is nearest.
void SetMode(const std::string& name, nn::UpsampleOptions& options) {
  if (name == "linear") options.mode(torch::kLinear);
  if (name == "bilinear") options.mode(torch::kBilinear);
  if (name == "bicubic") options.mode(torch::kBicubic);
  if (name == "trilinear") options.mode(torch::kTrilinear);
}

// Runs Upsample as Python does: a single size or factor applies to all dimensions, while
// LibTorch needs one for each. The number of dimensions is known only from the input.
torch::Tensor UpsampleAsPython(const nn::UpsampleImpl& module, const torch::Tensor& x) {
  nn::UpsampleImpl each(module.options);
  const auto dimensions = static_cast<size_t>(std::max<int64_t>(x.dim() - 2, 1));
  if (auto& size = each.options.size(); size && size->size() == 1) {
    size = std::vector<int64_t>(dimensions, size->front());
  }
  if (auto& scale = each.options.scale_factor(); scale && scale->size() == 1) {
    scale = std::vector<double>(dimensions, scale->front());
  }
  return each.forward(x);
}

}  // namespace

void Table::AddUpsample() {
  Add<nn::UpsampleImpl>(
      "Upsample",
      [](const auto& o) {
        return NamedValues{
            {"size", o.size() ? ScalarOrList(*o.size()) : NoneValue()},
            {"scale_factor",
             o.scale_factor() ? ScalarOrList(*o.scale_factor()) : NoneValue()},
            {"mode", Word(o.mode())},
            {"align_corners", V(o.align_corners())}};
      },
      [](const Arguments& a) {
        nn::UpsampleOptions options;
        if (!a.None("size")) options.size(a.Ints("size"));
        if (!a.None("scale_factor")) options.scale_factor(a.Numbers("scale_factor"));
        SetMode(a.Text("mode"), options);
        if (!a.None("align_corners")) options.align_corners(a.Flag("align_corners"));
        if (a.Flag("recompute_scale_factor")) a.Refuse();  // LibTorch has no such option.
        return options;
      });
  by_name["Upsample"].build = [build =
                                   by_name["Upsample"].build](const ModuleTree& node) {
    Leaf leaf = build(node);
    if (leaf.module == nullptr) return leaf;
    leaf.forward = [raw = leaf.module.get()](const torch::Tensor& x) {
      return UpsampleAsPython(dynamic_cast<const nn::UpsampleImpl&>(*raw), x);
    };
    return leaf;
  };
}

}  // namespace modelstore::torch_internal::leaves
