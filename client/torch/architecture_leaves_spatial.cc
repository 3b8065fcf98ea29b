// Convolutions, pools and paddings.
#include "client/torch/architecture_leaf_table.h"

namespace modelstore::torch_internal::leaves {

// Convolutions and transposed convolutions share this options struct.
template <size_t D>
NamedValues ReadConvolution(const nn::detail::ConvNdOptions<D>& o) {
  return {{"in_channels", V(o.in_channels())},
          {"out_channels", V(o.out_channels())},
          {"kernel_size", V(o.kernel_size())},
          {"stride", V(o.stride())},
          {"dilation", V(o.dilation())},
          {"groups", V(o.groups())},
          {"bias", V(o.bias())},
          {"padding_mode", Word(o.padding_mode())}};
}

// Converts the padding option, which is sizes, `valid` or `same`.
struct PaddingValue {
  template <size_t D>
  v1::Value operator()(const torch::ExpandingArray<D>& array) const {
    return V(array);
  }
  v1::Value operator()(torch::enumtype::kValid) const { return StringValue("valid"); }
  v1::Value operator()(torch::enumtype::kSame) const { return StringValue("same"); }
};

// LibTorch's default is zeros.
template <typename Options>
void SetPaddingMode(const std::string& mode, Options& options) {
  if (mode == "reflect") options.padding_mode(torch::kReflect);
  if (mode == "replicate") options.padding_mode(torch::kReplicate);
  if (mode == "circular") options.padding_mode(torch::kCircular);
}

template <size_t D, typename Conv, typename Transposed>
void Table::AddConvolutions(const char* conv, const char* transposed) {
  Add<Conv>(
      conv,
      [](const auto& o) {
        NamedValues values = ReadConvolution<D>(o);
        // visit() is found by argument-dependent lookup, because the variant is c10's or
        // the standard library's, depending on the version of LibTorch.
        values.emplace_back("padding", visit(PaddingValue(), o.padding()));
        return values;
      },
      [](const Arguments& a) {
        nn::ConvOptions<D> options(a.Int("in_channels"), a.Int("out_channels"),
                                   a.Sizes<D>("kernel_size"));
        options.stride(a.Sizes<D>("stride")).dilation(a.Sizes<D>("dilation"));
        options.groups(a.Int("groups")).bias(a.Flag("bias"));
        const std::string padding = a.Text("padding");
        if (padding == "same") {
          options.padding(torch::kSame);
        } else if (padding == "valid") {
          options.padding(torch::kValid);
        } else {
          options.padding(a.Sizes<D>("padding"));
        }
        SetPaddingMode(a.Text("padding_mode"), options);
        return options;
      });
  Add<Transposed>(
      transposed,
      [](const auto& o) {
        NamedValues values = ReadConvolution<D>(o);
        values.emplace_back("padding", visit(PaddingValue(), o.padding()));
        values.emplace_back("output_padding", V(o.output_padding()));
        return values;
      },
      [](const Arguments& a) {
        return nn::ConvTransposeOptions<D>(a.Int("in_channels"), a.Int("out_channels"),
                                           a.Sizes<D>("kernel_size"))
            .stride(a.Sizes<D>("stride"))
            .padding(a.Sizes<D>("padding"))
            .output_padding(a.Sizes<D>("output_padding"))
            .dilation(a.Sizes<D>("dilation"))
            .groups(a.Int("groups"))
            .bias(a.Flag("bias"));
      });
}

template <size_t D, typename Max, typename Avg>
void Table::AddPools(const char* max, const char* avg) {
  Add<Max>(
      max,
      [](const auto& o) {
        return NamedValues{{"kernel_size", V(o.kernel_size())},
                           {"stride", V(o.stride())},
                           {"padding", V(o.padding())},
                           {"dilation", V(o.dilation())},
                           {"ceil_mode", V(o.ceil_mode())}};
      },
      [](const Arguments& a) {
        // A module that returns indices has two outputs, which a forward cannot pass on.
        if (a.Flag("return_indices")) a.Refuse();
        return nn::MaxPoolOptions<D>(a.Sizes<D>("kernel_size"))
            .stride(a.Sizes<D>("stride"))
            .padding(a.Sizes<D>("padding"))
            .dilation(a.Sizes<D>("dilation"))
            .ceil_mode(a.Flag("ceil_mode"));
      });
  Add<Avg>(
      avg,
      [](const auto& o) {
        NamedValues values = {{"kernel_size", V(o.kernel_size())},
                              {"stride", V(o.stride())},
                              {"padding", V(o.padding())},
                              {"ceil_mode", V(o.ceil_mode())},
                              {"count_include_pad", V(o.count_include_pad())}};
        if constexpr (D > 1) {
          values.emplace_back("divisor_override", V(o.divisor_override()));
        }
        return values;
      },
      [](const Arguments& a) {
        nn::AvgPoolOptions<D> options(a.Sizes<D>("kernel_size"));
        options.stride(a.Sizes<D>("stride")).padding(a.Sizes<D>("padding"));
        options.ceil_mode(a.Flag("ceil_mode"));
        options.count_include_pad(a.Flag("count_include_pad"));
        if (!a.None("divisor_override")) {
          options.divisor_override(a.Int("divisor_override"));
        }
        return options;
      });
}

template <typename Avg, typename AvgOptions, typename Max, typename MaxOptions>
void Table::AddAdaptivePools(const char* avg, const char* max) {
  const auto read = [](const auto& o) {
    return NamedValues{{"output_size", Tuple(o.output_size())}};
  };
  const auto make = []<typename Options>(const Arguments& a, Options*) {
    using Array = std::decay_t<decltype(std::declval<Options>().output_size())>;
    if (a.Flag("return_indices")) a.Refuse();
    return Options(a.OutputSizes<Array>("output_size"));
  };
  Add<Avg>(avg, read, [make](const Arguments& a) {
    return make(a, static_cast<AvgOptions*>(nullptr));
  });
  Add<Max>(max, read, [make](const Arguments& a) {
    return make(a, static_cast<MaxOptions*>(nullptr));
  });
}

// Paddings have two sizes per dimension: before and after.
template <size_t D, typename Reflection, typename Replication, typename Constant>
void Table::AddPads(const char* reflection, const char* replication,
                    const char* constant) {
  const auto read = [](const auto& o) {
    return NamedValues{{"padding", V(o.padding())}};
  };
  Add<Reflection>(reflection, read, [](const Arguments& a) {
    return nn::ReflectionPadOptions<D>(a.Sizes<2 * D>("padding"));
  });
  Add<Replication>(replication, read, [](const Arguments& a) {
    return nn::ReplicationPadOptions<D>(a.Sizes<2 * D>("padding"));
  });
  Add<Constant>(
      constant,
      [](const auto& o) {
        return NamedValues{{"padding", V(o.padding())}, {"value", V(o.value())}};
      },
      [](const Arguments& a) {
        return nn::ConstantPadOptions<D>(a.Sizes<2 * D>("padding"), a.Number("value"));
      });
}

template <size_t D, typename Lp>
void Table::AddLpPool(const char* name) {
  Add<Lp>(
      name,
      [](const auto& o) {
        return NamedValues{{"norm_type", V(o.norm_type())},
                           {"kernel_size", V(o.kernel_size())},
                           {"stride", V(o.stride())},
                           {"ceil_mode", V(o.ceil_mode())}};
      },
      [](const Arguments& a) {
        nn::LPPoolOptions<D> options(a.Number("norm_type"), a.Sizes<D>("kernel_size"));
        if (!a.None("stride")) options.stride(a.Sizes<D>("stride"));
        return options.ceil_mode(a.Flag("ceil_mode"));
      });
}

void Table::AddSpatial() {
  AddConvolutions<1, nn::Conv1dImpl, nn::ConvTranspose1dImpl>("Conv1d",
                                                              "ConvTranspose1d");
  AddConvolutions<2, nn::Conv2dImpl, nn::ConvTranspose2dImpl>("Conv2d",
                                                              "ConvTranspose2d");
  AddConvolutions<3, nn::Conv3dImpl, nn::ConvTranspose3dImpl>("Conv3d",
                                                              "ConvTranspose3d");
  AddPools<1, nn::MaxPool1dImpl, nn::AvgPool1dImpl>("MaxPool1d", "AvgPool1d");
  AddPools<2, nn::MaxPool2dImpl, nn::AvgPool2dImpl>("MaxPool2d", "AvgPool2d");
  AddPools<3, nn::MaxPool3dImpl, nn::AvgPool3dImpl>("MaxPool3d", "AvgPool3d");
  AddLpPool<1, nn::LPPool1dImpl>("LPPool1d");
  AddLpPool<2, nn::LPPool2dImpl>("LPPool2d");
  AddAdaptivePools<nn::AdaptiveAvgPool1dImpl, nn::AdaptiveAvgPool1dOptions,
                   nn::AdaptiveMaxPool1dImpl, nn::AdaptiveMaxPool1dOptions>(
      "AdaptiveAvgPool1d", "AdaptiveMaxPool1d");
  AddAdaptivePools<nn::AdaptiveAvgPool2dImpl, nn::AdaptiveAvgPool2dOptions,
                   nn::AdaptiveMaxPool2dImpl, nn::AdaptiveMaxPool2dOptions>(
      "AdaptiveAvgPool2d", "AdaptiveMaxPool2d");
  AddAdaptivePools<nn::AdaptiveAvgPool3dImpl, nn::AdaptiveAvgPool3dOptions,
                   nn::AdaptiveMaxPool3dImpl, nn::AdaptiveMaxPool3dOptions>(
      "AdaptiveAvgPool3d", "AdaptiveMaxPool3d");
  AddPads<1, nn::ReflectionPad1dImpl, nn::ReplicationPad1dImpl, nn::ConstantPad1dImpl>(
      "ReflectionPad1d", "ReplicationPad1d", "ConstantPad1d");
  AddPads<2, nn::ReflectionPad2dImpl, nn::ReplicationPad2dImpl, nn::ConstantPad2dImpl>(
      "ReflectionPad2d", "ReplicationPad2d", "ConstantPad2d");
  AddPads<3, nn::ReflectionPad3dImpl, nn::ReplicationPad3dImpl, nn::ConstantPad3dImpl>(
      "ReflectionPad3d", "ReplicationPad3d", "ConstantPad3d");
  Add<nn::ZeroPad2dImpl>(
      "ZeroPad2d",
      [](const auto& o) {
        return NamedValues{{"padding", V(o.padding())}};
      },
      [](const Arguments& a) { return nn::ZeroPad2dOptions(a.Sizes<4>("padding")); });
}

}  // namespace modelstore::torch_internal::leaves
