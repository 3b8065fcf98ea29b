// The table of types: signatures and extra_repr() of PyTorch 1.13's torch.nn.
#include "absl/container/flat_hash_map.h"
#include "proto/contract/architecture/types.h"

namespace modelstore {
namespace {

using enum ArgumentKind;

constexpr char kPaddingModes[] = "zeros reflect replicate circular";

constexpr ArgumentSpec kLinear[] = {
    {"in_features", kSize}, {"out_features", kSize}, {"bias", kBool, "True"}};
constexpr char kLinearRepr[] =
    "in_features={in_features}, out_features={out_features}, bias={bias}";
constexpr ArgumentSpec kBilinear[] = {{"in1_features", kSize},
                                      {"in2_features", kSize},
                                      {"out_features", kSize},
                                      {"bias", kBool, "True"}};

constexpr ArgumentSpec kConv[] = {{"in_channels", kSize},
                                  {"out_channels", kSize},
                                  {"kernel_size", kTuple},
                                  {"stride", kTuple, "1"},
                                  {"padding", kPadding, "0", "same valid"},
                                  {"dilation", kTuple, "1"},
                                  {"groups", kCount, "1"},
                                  {"bias", kBool, "True"},
                                  {"padding_mode", kString, "zeros", kPaddingModes}};
constexpr char kConvRepr[] =
    "{in_channels}, {out_channels}, kernel_size={kernel_size}, stride={stride}"
    "[, padding={padding}][, dilation={dilation}][, groups={groups}][, bias={bias}]"
    "[, padding_mode={padding_mode}]";
constexpr ArgumentSpec kConvTranspose[] = {
    {"in_channels", kSize},    {"out_channels", kSize},
    {"kernel_size", kTuple},   {"stride", kTuple, "1"},
    {"padding", kTuple, "0"},  {"output_padding", kTuple, "0"},
    {"groups", kCount, "1"},   {"bias", kBool, "True"},
    {"dilation", kTuple, "1"}, {"padding_mode", kString, "zeros", "zeros"}};
constexpr char kConvTransposeRepr[] =
    "{in_channels}, {out_channels}, kernel_size={kernel_size}, stride={stride}"
    "[, padding={padding}][, dilation={dilation}][, output_padding={output_padding}]"
    "[, groups={groups}][, bias={bias}][, padding_mode={padding_mode}]";

constexpr ArgumentSpec kBatchNorm[] = {{"num_features", kSize},
                                       {"eps", kNumber, "1e-05"},
                                       {"momentum", kNumber, "0.1", "", true},
                                       {"affine", kBool, "True"},
                                       {"track_running_stats", kBool, "True"}};
constexpr ArgumentSpec kInstanceNorm[] = {{"num_features", kSize},
                                          {"eps", kNumber, "1e-05"},
                                          {"momentum", kNumber, "0.1"},
                                          {"affine", kBool, "False"},
                                          {"track_running_stats", kBool, "False"}};
constexpr char kNormRepr[] =
    "{num_features}, eps={eps}, momentum={momentum}, affine={affine}, "
    "track_running_stats={track_running_stats}";
constexpr ArgumentSpec kGroupNorm[] = {{"num_groups", kCount},
                                       {"num_channels", kSize},
                                       {"eps", kNumber, "1e-05"},
                                       {"affine", kBool, "True"}};
constexpr ArgumentSpec kLayerNorm[] = {{"normalized_shape", kShape},
                                       {"eps", kNumber, "1e-05"},
                                       {"elementwise_affine", kBool, "True"}};
constexpr ArgumentSpec kResponseNorm[] = {{"size", kSize},
                                          {"alpha", kNumber, "0.0001"},
                                          {"beta", kNumber, "0.75"},
                                          {"k", kNumber, "1.0"}};
constexpr ArgumentSpec kCrossMapNorm[] = {{"size", kSize},
                                          {"alpha", kNumber, "0.0001"},
                                          {"beta", kNumber, "0.75"},
                                          {"k", kNumber, "1"}};
constexpr char kResponseNormRepr[] = "{size}, alpha={alpha}, beta={beta}, k={k}";

constexpr ArgumentSpec kEmbedding[] = {{"num_embeddings", kSize},
                                       {"embedding_dim", kSize},
                                       {"padding_idx", kInt, "None", "", true},
                                       {"max_norm", kNumber, "None", "", true},
                                       {"norm_type", kNumber, "2.0"},
                                       {"scale_grad_by_freq", kBool, "False"},
                                       {"sparse", kBool, "False"}};
constexpr ArgumentSpec kEmbeddingBag[] = {{"num_embeddings", kSize},
                                          {"embedding_dim", kSize},
                                          {"max_norm", kNumber, "None", "", true},
                                          {"norm_type", kNumber, "2.0"},
                                          {"scale_grad_by_freq", kBool, "False"},
                                          {"mode", kString, "mean", "sum mean max"},
                                          {"sparse", kBool, "False"},
                                          {"include_last_offset", kBool, "False"},
                                          {"padding_idx", kInt, "None", "", true}};

constexpr ArgumentSpec kRnn[] = {{"input_size", kSize},
                                 {"hidden_size", kSize},
                                 {"num_layers", kCount, "1"},
                                 {"bias", kBool, "True"},
                                 {"batch_first", kBool, "False"},
                                 {"dropout", kFloat, "0.0"},
                                 {"bidirectional", kBool, "False"},
                                 {"nonlinearity", kString, "tanh", "tanh relu"}};
constexpr ArgumentSpec kLstm[] = {{"input_size", kSize},
                                  {"hidden_size", kSize},
                                  {"num_layers", kCount, "1"},
                                  {"bias", kBool, "True"},
                                  {"batch_first", kBool, "False"},
                                  {"dropout", kFloat, "0.0"},
                                  {"bidirectional", kBool, "False"},
                                  {"proj_size", kSize, "0"}};
constexpr auto kGru = absl::MakeConstSpan(kRnn).first(7);
constexpr char kRnnRepr[] =
    "{input_size}, {hidden_size}[, num_layers={num_layers}][, bias={bias}]"
    "[, batch_first={batch_first}][, dropout={dropout}][, bidirectional={bidirectional}]";
constexpr char kLstmRepr[] =
    "{input_size}, {hidden_size}[, proj_size={proj_size}][, num_layers={num_layers}]"
    "[, bias={bias}][, batch_first={batch_first}][, dropout={dropout}]"
    "[, bidirectional={bidirectional}]";
constexpr ArgumentSpec kRnnCell[] = {{"input_size", kSize},
                                     {"hidden_size", kSize},
                                     {"bias", kBool, "True"},
                                     {"nonlinearity", kString, "tanh", "tanh relu"}};
constexpr auto kGateCell = absl::MakeConstSpan(kRnnCell).first(3);

constexpr ArgumentSpec kAttention[] = {
    {"embed_dim", kCount},           {"num_heads", kCount},
    {"dropout", kNumber, "0.0"},     {"bias", kBool, "True"},
    {"add_bias_kv", kBool, "False"}, {"add_zero_attn", kBool, "False"},
    {"kdim", kSize, "=embed_dim"},   {"vdim", kSize, "=embed_dim"},
    {"batch_first", kBool, "False"}};
constexpr ArgumentSpec kTransformerLayer[] = {
    {"d_model", kCount},
    {"nhead", kCount},
    {"dim_feedforward", kSize, "2048"},
    {"dropout", kNumber, "0.1"},
    {"activation", kString, "relu", "relu gelu"},
    {"layer_norm_eps", kNumber, "1e-05"},
    {"batch_first", kBool, "False"},
    {"norm_first", kBool, "False"}};
// The repeated layer and the norm are children, not arguments.
constexpr ArgumentSpec kTransformerCoder[] = {{"num_layers", kCount}};
constexpr ArgumentSpec kTransformer[] = {{"d_model", kCount, "512"},
                                         {"nhead", kCount, "8"},
                                         {"num_encoder_layers", kCount, "6"},
                                         {"num_decoder_layers", kCount, "6"},
                                         {"dim_feedforward", kSize, "2048"},
                                         {"dropout", kNumber, "0.1"},
                                         {"activation", kString, "relu", "relu gelu"},
                                         {"layer_norm_eps", kNumber, "1e-05"},
                                         {"batch_first", kBool, "False"},
                                         {"norm_first", kBool, "False"}};

constexpr ArgumentSpec kDropout[] = {{"p", kNumber, "0.5"}, {"inplace", kBool, "False"}};
constexpr char kDropoutRepr[] = "p={p}, inplace={inplace}";
constexpr ArgumentSpec kInplace[] = {{"inplace", kBool, "False"}};
constexpr char kInplaceRepr[] = "[inplace={inplace}]";
constexpr ArgumentSpec kAlpha[] = {{"alpha", kNumber, "1.0"},
                                   {"inplace", kBool, "False"}};
constexpr char kAlphaRepr[] = "alpha={alpha}[, inplace={inplace}]";
constexpr ArgumentSpec kLambda[] = {{"lambd", kNumber, "0.5"}};
constexpr ArgumentSpec kSlope[] = {{"negative_slope", kNumber, "0.01"},
                                   {"inplace", kBool, "False"}};
constexpr ArgumentSpec kRRelu[] = {{"lower", kNumber, "0.125"},
                                   {"upper", kNumber, "0.3333333333333333"},
                                   {"inplace", kBool, "False"}};
constexpr ArgumentSpec kHardtanh[] = {{"min_val", kNumber, "-1.0"},
                                      {"max_val", kNumber, "1.0"},
                                      {"inplace", kBool, "False"}};
constexpr ArgumentSpec kThreshold[] = {
    {"threshold", kNumber}, {"value", kNumber}, {"inplace", kBool, "False"}};
constexpr ArgumentSpec kPRelu[] = {{"num_parameters", kCount, "1"},
                                   {"init", kNumber, "0.25"}};
constexpr ArgumentSpec kSoftplus[] = {{"beta", kNumber, "1"},
                                      {"threshold", kNumber, "20"}};
constexpr ArgumentSpec kGelu[] = {{"approximate", kString, "none", "none tanh"}};
constexpr ArgumentSpec kGlu[] = {{"dim", kInt, "-1"}};
constexpr ArgumentSpec kSoftmax[] = {{"dim", kInt, "None", "", true}};

constexpr ArgumentSpec kMaxPool[] = {{"kernel_size", kSizes},
                                     {"stride", kSizes, "=kernel_size"},
                                     {"padding", kSizes, "0"},
                                     {"dilation", kSizes, "1"},
                                     {"return_indices", kBool, "False"},
                                     {"ceil_mode", kBool, "False"}};
constexpr char kMaxPoolRepr[] =
    "kernel_size={kernel_size}, stride={stride}, padding={padding}, "
    "dilation={dilation}, ceil_mode={ceil_mode}";
constexpr ArgumentSpec kAvgPool1d[] = {{"kernel_size", kTuple},
                                       {"stride", kTuple, "=kernel_size"},
                                       {"padding", kTuple, "0"},
                                       {"ceil_mode", kBool, "False"},
                                       {"count_include_pad", kBool, "True"}};
constexpr ArgumentSpec kAvgPool[] = {{"kernel_size", kSizes},
                                     {"stride", kSizes, "=kernel_size"},
                                     {"padding", kSizes, "0"},
                                     {"ceil_mode", kBool, "False"},
                                     {"count_include_pad", kBool, "True"},
                                     {"divisor_override", kInt, "None", "", true}};
constexpr char kPoolRepr[] =
    "kernel_size={kernel_size}, stride={stride}, padding={padding}";
constexpr ArgumentSpec kMaxUnpool[] = {{"kernel_size", kTuple},
                                       {"stride", kTuple, "=kernel_size"},
                                       {"padding", kTuple, "0"}};
constexpr ArgumentSpec kLpPool[] = {{"norm_type", kNumber},
                                    {"kernel_size", kSizes},
                                    {"stride", kSizes, "None", "", true},
                                    {"ceil_mode", kBool, "False"}};
constexpr char kLpPoolRepr[] =
    "norm_type={norm_type}, kernel_size={kernel_size}, stride={stride}, "
    "ceil_mode={ceil_mode}";
constexpr ArgumentSpec kAdaptivePool[] = {{"output_size", kOutputSize},
                                          {"return_indices", kBool, "False"}};
constexpr auto kAdaptiveAvgPool = absl::MakeConstSpan(kAdaptivePool).first(1);
constexpr char kAdaptiveRepr[] = "output_size={output_size}";

constexpr ArgumentSpec kPad[] = {{"padding", kPads}};
constexpr ArgumentSpec kConstantPad[] = {{"padding", kPads}, {"value", kNumber}};
constexpr char kConstantPadRepr[] = "padding={padding}, value={value}";

constexpr ArgumentSpec kFlatten[] = {{"start_dim", kInt, "1"}, {"end_dim", kInt, "-1"}};
constexpr ArgumentSpec kUnflatten[] = {{"dim", kInt}, {"unflattened_size", kShape}};
constexpr ArgumentSpec kUpscale[] = {{"upscale_factor", kCount}};
constexpr ArgumentSpec kDownscale[] = {{"downscale_factor", kCount}};
constexpr ArgumentSpec kFold[] = {{"output_size", kSizes},
                                  {"kernel_size", kSizes},
                                  {"dilation", kSizes, "1"},
                                  {"padding", kSizes, "0"},
                                  {"stride", kSizes, "1"}};
constexpr auto kUnfold = absl::MakeConstSpan(kFold).subspan(1);
constexpr ArgumentSpec kUpsample[] = {
    {"size", kAnySizes, "None", "", true},
    {"scale_factor", kScale, "None", "", true},
    {"mode", kString, "nearest", "nearest linear bilinear bicubic trilinear"},
    {"align_corners", kBool, "None", "", true},
    {"recompute_scale_factor", kBool, "None", "", true}};

constexpr absl::Span<const ArgumentSpec> kNone;

constexpr ModuleType kTypes[] = {
    {"Linear", kLinear, kLinearRepr},
    // The type of MultiheadAttention's out_proj. Equal to Linear except for its name.
    {"NonDynamicallyQuantizableLinear", kLinear, kLinearRepr},
    {"Bilinear", kBilinear,
     "in1_features={in1_features}, in2_features={in2_features}, "
     "out_features={out_features}, bias={bias}"},
    {"Conv1d", kConv, kConvRepr, 1},
    {"Conv2d", kConv, kConvRepr, 2},
    {"Conv3d", kConv, kConvRepr, 3},
    {"ConvTranspose1d", kConvTranspose, kConvTransposeRepr, 1},
    {"ConvTranspose2d", kConvTranspose, kConvTransposeRepr, 2},
    {"ConvTranspose3d", kConvTranspose, kConvTransposeRepr, 3},
    {"BatchNorm1d", kBatchNorm, kNormRepr},
    {"BatchNorm2d", kBatchNorm, kNormRepr},
    {"BatchNorm3d", kBatchNorm, kNormRepr},
    {"SyncBatchNorm", kBatchNorm, kNormRepr},
    {"InstanceNorm1d", kInstanceNorm, kNormRepr},
    {"InstanceNorm2d", kInstanceNorm, kNormRepr},
    {"InstanceNorm3d", kInstanceNorm, kNormRepr},
    {"GroupNorm", kGroupNorm, "{num_groups}, {num_channels}, eps={eps}, affine={affine}"},
    {"LayerNorm", kLayerNorm,
     "{normalized_shape}, eps={eps}, elementwise_affine={elementwise_affine}"},
    {"LocalResponseNorm", kResponseNorm, kResponseNormRepr},
    {"CrossMapLRN2d", kCrossMapNorm, kResponseNormRepr},
    {"Embedding", kEmbedding,
     "{num_embeddings}, {embedding_dim}[, padding_idx={padding_idx}]"
     "[, max_norm={max_norm}][, norm_type={norm_type}]"
     "[, scale_grad_by_freq={scale_grad_by_freq}][, sparse={sparse}]"},
    {"EmbeddingBag", kEmbeddingBag,
     "{num_embeddings}, {embedding_dim}[, max_norm={max_norm}][, norm_type={norm_type}]"
     "[, scale_grad_by_freq={scale_grad_by_freq}], mode={mode}"
     "[, padding_idx={padding_idx}]"},
    {"RNN", kRnn, kRnnRepr},
    {"LSTM", kLstm, kLstmRepr},
    {"GRU", kGru, kRnnRepr},
    {"RNNCell", kRnnCell,
     "{input_size}, {hidden_size}[, bias={bias}][, nonlinearity={nonlinearity}]"},
    {"LSTMCell", kGateCell, "{input_size}, {hidden_size}[, bias={bias}]"},
    {"GRUCell", kGateCell, "{input_size}, {hidden_size}[, bias={bias}]"},
    {"MultiheadAttention", kAttention, ""},
    {"TransformerEncoderLayer", kTransformerLayer, ""},
    {"TransformerDecoderLayer", kTransformerLayer, ""},
    {"TransformerEncoder", kTransformerCoder, ""},
    {"TransformerDecoder", kTransformerCoder, ""},
    {"Transformer", kTransformer, ""},
    {"Dropout", kDropout, kDropoutRepr},
    {"Dropout1d", kDropout, kDropoutRepr},
    {"Dropout2d", kDropout, kDropoutRepr},
    {"Dropout3d", kDropout, kDropoutRepr},
    {"AlphaDropout", kDropout, kDropoutRepr},
    {"FeatureAlphaDropout", kDropout, kDropoutRepr},
    {"ReLU", kInplace, kInplaceRepr},
    {"ReLU6", kInplace, kInplaceRepr},
    {"SELU", kInplace, kInplaceRepr},
    {"SiLU", kInplace, kInplaceRepr},
    {"Mish", kInplace, kInplaceRepr},
    {"Hardswish", kInplace, ""},
    {"Hardsigmoid", kInplace, ""},
    {"ELU", kAlpha, kAlphaRepr},
    {"CELU", kAlpha, kAlphaRepr},
    {"Hardshrink", kLambda, "{lambd}"},
    {"Softshrink", kLambda, "{lambd}"},
    {"LeakyReLU", kSlope, "negative_slope={negative_slope}[, inplace={inplace}]"},
    {"RReLU", kRRelu, "lower={lower}, upper={upper}[, inplace={inplace}]"},
    {"Hardtanh", kHardtanh, "min_val={min_val}, max_val={max_val}[, inplace={inplace}]"},
    {"Threshold", kThreshold,
     "threshold={threshold}, value={value}[, inplace={inplace}]"},
    {"PReLU", kPRelu, "num_parameters={num_parameters}"},
    {"Softplus", kSoftplus, "beta={beta}, threshold={threshold}"},
    {"GELU", kGelu, "approximate={approximate!r}"},
    {"GLU", kGlu, "dim={dim}"},
    {"Softmax", kSoftmax, "dim={dim}"},
    {"Softmin", kSoftmax, "dim={dim}"},
    {"LogSoftmax", kSoftmax, "dim={dim}"},
    {"Softmax2d", kNone, ""},
    {"Sigmoid", kNone, ""},
    {"LogSigmoid", kNone, ""},
    {"Softsign", kNone, ""},
    {"Tanh", kNone, ""},
    {"Tanhshrink", kNone, ""},
    {"MaxPool1d", kMaxPool, kMaxPoolRepr, 1},
    {"MaxPool2d", kMaxPool, kMaxPoolRepr, 2},
    {"MaxPool3d", kMaxPool, kMaxPoolRepr, 3},
    {"AvgPool1d", kAvgPool1d, kPoolRepr, 1},
    {"AvgPool2d", kAvgPool, kPoolRepr, 2},
    {"AvgPool3d", kAvgPool, kPoolRepr, 3},
    {"MaxUnpool1d", kMaxUnpool, kPoolRepr, 1},
    {"MaxUnpool2d", kMaxUnpool, kPoolRepr, 2},
    {"MaxUnpool3d", kMaxUnpool, kPoolRepr, 3},
    {"LPPool1d", kLpPool, kLpPoolRepr, 1},
    {"LPPool2d", kLpPool, kLpPoolRepr, 2},
    {"AdaptiveAvgPool1d", kAdaptiveAvgPool, kAdaptiveRepr, 1},
    {"AdaptiveAvgPool2d", kAdaptiveAvgPool, kAdaptiveRepr, 2},
    {"AdaptiveAvgPool3d", kAdaptiveAvgPool, kAdaptiveRepr, 3},
    {"AdaptiveMaxPool1d", kAdaptivePool, kAdaptiveRepr, 1},
    {"AdaptiveMaxPool2d", kAdaptivePool, kAdaptiveRepr, 2},
    {"AdaptiveMaxPool3d", kAdaptivePool, kAdaptiveRepr, 3},
    {"ReflectionPad1d", kPad, "{padding}", 1},
    {"ReflectionPad2d", kPad, "{padding}", 2},
    {"ReflectionPad3d", kPad, "{padding}", 3},
    {"ReplicationPad1d", kPad, "{padding}", 1},
    {"ReplicationPad2d", kPad, "{padding}", 2},
    {"ReplicationPad3d", kPad, "{padding}", 3},
    {"ZeroPad2d", kPad, "{padding}", 2},
    {"ConstantPad1d", kConstantPad, kConstantPadRepr, 1},
    {"ConstantPad2d", kConstantPad, kConstantPadRepr, 2},
    {"ConstantPad3d", kConstantPad, kConstantPadRepr, 3},
    {"Flatten", kFlatten, "start_dim={start_dim}, end_dim={end_dim}"},
    {"Unflatten", kUnflatten, "dim={dim}, unflattened_size={unflattened_size}"},
    {"PixelShuffle", kUpscale, "upscale_factor={upscale_factor}"},
    {"PixelUnshuffle", kDownscale, "downscale_factor={downscale_factor}"},
    {"Fold", kFold,
     "output_size={output_size}, kernel_size={kernel_size}, dilation={dilation}, "
     "padding={padding}, stride={stride}",
     2},
    {"Unfold", kUnfold,
     "kernel_size={kernel_size}, dilation={dilation}, padding={padding}, "
     "stride={stride}",
     2},
    {"Upsample", kUpsample, "[scale_factor={scale_factor}][size={size}], mode={mode}"},
    {"Identity", kNone, ""},
    {"Sequential", kNone, ""},
    {"ModuleList", kNone, ""},
    {"ModuleDict", kNone, ""},
};

}  // namespace

absl::Span<const ModuleType> AllModuleTypes() { return kTypes; }

const ModuleType* FindModuleType(absl::string_view name) {
  static const auto* const by_name = [] {
    auto* map = new absl::flat_hash_map<absl::string_view, const ModuleType*>;
    for (const ModuleType& type : kTypes) map->emplace(type.name, &type);
    return map;
  }();
  const auto found = by_name->find(name);
  return found == by_name->end() ? nullptr : found->second;
}

}  // namespace modelstore
