// What age and accidents do to the files of a store.
#pragma once

#include <random>
#include <string>

namespace modelstore::storage {

// Flips one bit of the file, or cuts it, at a random place; every tenth one in a
// record's header, an index or a footer. Says what it did.
std::string DamageFile(const std::string& path, std::mt19937_64& random);

}  // namespace modelstore::storage
