// The parsers of bytes that come from outside, each with the properties that hold for
// every input. Two programs run them:
//   fuzz_test      in every build: findings of the past, and inputs damaged at random
//   fuzzers        clang with MODELSTORE_FUZZERS: libFuzzer, guided by coverage;
//                  tests/fuzz/run builds and runs it
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace modelstore::fuzz {

struct Target {
  // Names the target's folder below tests/fuzz/findings.
  const char* name;
  // Well-formed inputs, from which both programs start. A few KiB.
  std::vector<std::string> (*seeds)();
  // Hands `input` to the parser and returns whether it was accepted. Throws Violation
  // if a property does not hold.
  bool (*run)(absl::string_view input);
};

const std::vector<Target>& Targets();

class Violation : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Throws a Violation that names the condition.
#define FUZZ_REQUIRE(condition)                                                  \
  do {                                                                           \
    if (!(condition)) throw ::modelstore::fuzz::Violation("false: " #condition); \
  } while (false)

// Requires that `status` is a refusal that a client can be sent: INVALID_ARGUMENT whose
// message begins with `prefix`, is UTF-8 and is short.
void RequireRefusal(const absl::Status& status, absl::string_view prefix);

// The targets of each file.
std::vector<Target> ArchitectureTargets();
std::vector<Target> ChunkMessageTargets();
std::vector<Target> NameTargets();
std::vector<Target> QueryTargets();
std::vector<Target> RecordTargets();
std::vector<Target> StoreFileTargets();

}  // namespace modelstore::fuzz
