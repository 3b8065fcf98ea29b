// Copies large memory without filling the caches.
#pragma once

#include <cstddef>
#include <vector>

namespace modelstore::internal {

// As memcpy(), but with non-temporal stores: written lines are not read first, and the
// cached data of other threads is not evicted. For large memory that is not read again
// soon; for small memory memcpy() is better, as it leaves the copy in the caches. Equal
// to memcpy() on processors other than x86-64.
void StreamingCopy(char* to, const char* from, size_t bytes);

// Implementations that this processor supports, fastest first. StreamingCopy() uses the
// first; tests check all.
std::vector<void (*)(char* to, const char* from, size_t bytes)> StreamingCopies();

}  // namespace modelstore::internal
