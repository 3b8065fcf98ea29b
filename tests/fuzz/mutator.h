// Makes inputs for the fuzz tests: starts from well-formed ones and damages them,
// the way parsers are usually broken. Deterministic: the same seed, the same
// inputs.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace modelstore {

// How many inputs a fuzz test tries: enough for a few seconds, or more by
// MODELSTORE_FUZZ_ITERATIONS.
inline int64_t FuzzIterations(int64_t usual) {
  const char* given = std::getenv("MODELSTORE_FUZZ_ITERATIONS");
  return given != nullptr ? std::strtoll(given, nullptr, 10) : usual;
}

class Mutator {
 public:
  // `corpus` is not empty.
  Mutator(uint64_t seed, std::vector<std::string> corpus);

  // The next input: one of the corpus with 0 to 6 mutations.
  std::string Next();

  size_t Below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }
  std::mt19937_64& random() { return random_; }

 private:
  void Mutate(std::string& bytes);

  std::mt19937_64 random_;
  const std::vector<std::string> corpus_;
};

}  // namespace modelstore
