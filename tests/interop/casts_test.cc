// Casts, held bit for bit against those of Python's PyTorch on this machine.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "proto/contract/numeric.h"
#include "tests/interop/python.h"
#include "tests/support/temp_folder.h"

namespace modelstore {
namespace {

std::string ReadBytes(std::ifstream& file, int64_t count) {
  std::string bytes(count, '\0');
  EXPECT_TRUE(file.read(bytes.data(), count));
  return bytes;
}

std::string Hex(const std::string& bytes, int64_t element, int64_t size) {
  uint64_t bits = 0;
  std::memcpy(&bits, bytes.data() + element * size, size);
  return absl::StrCat(absl::Hex(bits, absl::kZeroPad16));
}

TEST(Casts, GiveTheBitsThatPytorchGivesNanIncluded) {
  const support::TempFolder folder("casts");
  const std::string path = absl::StrCat(folder.path(), "/bytes");
  const auto pairs = RunPython("casts.py " + path);
  ASSERT_EQ(pairs.size(), 16u);
  std::ifstream file(path, std::ios::binary);
  for (const auto& pair : pairs) {
    const std::string& from_name = pair.fields().at("from").string_value();
    const std::string& to_name = pair.fields().at("to").string_value();
    const DType from = *DTypeFromName(from_name), to = *DTypeFromName(to_name);
    const auto count = static_cast<int64_t>(pair.fields().at("count").number_value());
    const std::string in = ReadBytes(file, count * ElementSize(from));
    const std::string expected = ReadBytes(file, count * ElementSize(to));
    std::string out(expected.size(), '\0');
    ASSERT_TRUE(Cast(from, in.data(), to, out.data(), count).ok());
    int differing = 0;
    for (int64_t i = 0; i < count && differing < 10; ++i) {
      const int64_t size = ElementSize(to);
      if (std::memcmp(&out[i * size], &expected[i * size], size) == 0) continue;
      ++differing;
      ADD_FAILURE() << from_name << " to " << to_name << ": "
                    << Hex(in, i, ElementSize(from)) << " is " << Hex(expected, i, size)
                    << " in PyTorch, " << Hex(out, i, size) << " here";
    }
  }
}

}  // namespace
}  // namespace modelstore
