// libFuzzer over one target:
//
//   fuzzers --target=NAME [FLAG OF LIBFUZZER...] [FOLDER...]
//   fuzzers --list           the targets' names, one a line
//   fuzzers --seeds=FOLDER   writes FOLDER/NAME/0, 1, ...: the seeds of every target
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "google/protobuf/stubs/logging.h"
#include "tests/fuzz/targets.h"

namespace modelstore::fuzz {
namespace {

const Target* chosen = nullptr;

void WriteSeeds(const std::filesystem::path& folder) {
  for (const Target& target : Targets()) {
    std::filesystem::create_directories(folder / target.name);
    int number = 0;
    for (const std::string& seed : target.seeds()) {
      std::ofstream(folder / target.name / absl::StrCat(number++), std::ios::binary)
          << seed;
    }
  }
}

}  // namespace
}  // namespace modelstore::fuzz

// libFuzzer calls these two by their names.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  using namespace modelstore::fuzz;  // NOLINT: the function cannot be in the namespace
  google::protobuf::SetLogHandler(nullptr);
  for (int i = 1; i < *argc; ++i) {
    absl::string_view argument = (*argv)[i];
    if (argument == "--list") {
      for (const Target& target : Targets()) std::cout << target.name << "\n";
      std::exit(0);
    }
    if (absl::ConsumePrefix(&argument, "--seeds=")) {
      WriteSeeds(std::string(argument));
      std::exit(0);
    }
    if (!absl::ConsumePrefix(&argument, "--target=")) continue;
    for (const Target& target : Targets()) {
      if (argument == target.name) chosen = &target;
    }
  }
  if (chosen == nullptr) {
    std::cerr << "fuzzers: give --target=NAME with a name of --list\n";
    std::exit(2);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A Violation is not caught: libFuzzer keeps the input of what ends the process.
  modelstore::fuzz::chosen->run(
      absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
