#include "tests/fuzz/mutator.h"

#include <algorithm>
#include <utility>

namespace modelstore {
namespace {

// Bytes that mean something to varints, UTF-8, names and paths.
constexpr unsigned char kInterestingBytes[] = {
    0x00, 0x01, 0x0f, 0x7a, 0x7f, 0x80, 0xc0, 0xc2, 0xed, 0xf4, 0xff, '/',
    '.',  ':',  '~',  '-',  '0',  '1',  'a',  'A',  ' ',  '\n', '%',  '\\'};

}  // namespace

Mutator::Mutator(uint64_t seed, std::vector<std::string> corpus)
    : random_(seed), corpus_(std::move(corpus)) {}

std::string Mutator::Next() {
  std::string bytes = corpus_[Below(corpus_.size())];
  for (size_t mutations = Below(7); mutations > 0; --mutations) Mutate(bytes);
  return bytes;
}

void Mutator::Mutate(std::string& bytes) {
  const size_t at = Below(bytes.size() + 1);
  const size_t rest = bytes.size() - at;
  const size_t count = Below(std::min<size_t>(rest, 16) + 1);
  switch (Below(8)) {
    case 0:  // one bit
      if (rest > 0) bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(8)));
      break;
    case 1:  // one byte, to a telling one
      if (rest > 0)
        bytes[at] =
            static_cast<char>(kInterestingBytes[Below(sizeof(kInterestingBytes))]);
      break;
    case 2:  // a telling byte more
      bytes.insert(
          at, 1, static_cast<char>(kInterestingBytes[Below(sizeof(kInterestingBytes))]));
      break;
    case 3:  // some bytes less
      bytes.erase(at, count);
      break;
    case 4:  // some bytes twice
      bytes.insert(at, bytes.substr(at, count));
      break;
    case 5:  // one byte up or down: lengths that just do not fit
      if (rest > 0) bytes[at] = static_cast<char>(bytes[at] + (Below(2) == 0 ? 1 : -1));
      break;
    case 6:  // cut short
      bytes.resize(at);
      break;
    default: {  // the head of one input, the tail of another
      const std::string& other = corpus_[Below(corpus_.size())];
      bytes = bytes.substr(0, at) + other.substr(Below(other.size() + 1));
    }
  }
}

}  // namespace modelstore
