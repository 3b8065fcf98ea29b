#include "proto/contract/torch_names.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace modelstore {

bool IsDTypeText(absl::string_view text) {
  // As in the repr() of torch.dtype, up to PyTorch 2.9.
  static const auto* const names =
      new absl::flat_hash_set<absl::string_view>{"bool",
                                                 "uint8",
                                                 "int8",
                                                 "int16",
                                                 "int32",
                                                 "int64",
                                                 "float16",
                                                 "bfloat16",
                                                 "float32",
                                                 "float64",
                                                 "complex32",
                                                 "complex64",
                                                 "complex128",
                                                 "uint16",
                                                 "uint32",
                                                 "uint64",
                                                 "float8_e4m3fn",
                                                 "float8_e5m2",
                                                 "float8_e4m3fnuz",
                                                 "float8_e5m2fnuz",
                                                 "float8_e8m0fnu",
                                                 "float4_e2m1fn_x2",
                                                 "quint8",
                                                 "qint8",
                                                 "qint32",
                                                 "quint4x2",
                                                 "quint2x4",
                                                 "bits1x8",
                                                 "bits2x4",
                                                 "bits4x2",
                                                 "bits8",
                                                 "bits16",
                                                 "uint1",
                                                 "uint2",
                                                 "uint3",
                                                 "uint4",
                                                 "uint5",
                                                 "uint6",
                                                 "uint7",
                                                 "int1",
                                                 "int2",
                                                 "int3",
                                                 "int4",
                                                 "int5",
                                                 "int6",
                                                 "int7"};
  return names->contains(text);
}

bool IsDeviceText(absl::string_view text) {
  // c10::DeviceType up to PyTorch 2.9.
  static const auto* const types = new absl::flat_hash_set<absl::string_view>{
      "cpu",  "cuda", "mkldnn", "opengl", "opencl", "ideep",        "hip", "fpga",
      "maia", "ort",  "xla",    "vulkan", "metal",  "xpu",          "mps", "meta",
      "hpu",  "ve",   "lazy",   "ipu",    "mtia",   "privateuseone"};
  const size_t colon = text.find(':');
  if (!types->contains(text.substr(0, colon))) return false;
  if (colon == absl::string_view::npos) return true;
  const absl::string_view digits = text.substr(colon + 1);
  int index = 0;
  return absl::SimpleAtoi(digits, &index) && absl::StrCat(index) == digits &&
         index >= 0 && index <= 127;
}

}  // namespace modelstore
