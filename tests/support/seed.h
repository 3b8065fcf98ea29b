// The seed of randomized tests. It differs in each run, is printed, and can be set:
//
//   std::mt19937_64 random(TestSeed());
//
//   MODELSTORE_TEST_SEED=1234 ctest -R NameOfTheTest
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace modelstore {

inline uint64_t TestSeed() {
  static const uint64_t seed = [] {
    const char* given = std::getenv("MODELSTORE_TEST_SEED");
    const uint64_t chosen =
        given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
    std::printf("MODELSTORE_TEST_SEED=%llu\n", static_cast<unsigned long long>(chosen));
    std::fflush(stdout);
    return chosen;
  }();
  return seed;
}

// Number of rounds of a randomized test: MODELSTORE_TEST_ROUNDS, or `stated`.
inline int TestRounds(int stated) {
  const char* given = std::getenv("MODELSTORE_TEST_ROUNDS");
  return given != nullptr && *given != '\0' ? std::atoi(given) : stated;
}

}  // namespace modelstore
