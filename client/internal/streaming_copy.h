// Copies memory that is larger than the caches.
#pragma once

#include <cstddef>
#include <vector>

namespace modelstore::internal {

// As memcpy(), but past the caches: the lines that are written need not be read first,
// and whoever computes beside the copy keeps in the caches what it had there. For much
// memory that is not read again at once; of little, memcpy() leaves the copy in the
// caches. It is memcpy() where the processor is no x86-64.
void StreamingCopy(char* to, const char* from, size_t bytes);

// The ways to do it that this processor has, fastest first. StreamingCopy() is the first.
std::vector<void (*)(char* to, const char* from, size_t bytes)> StreamingCopies();

}  // namespace modelstore::internal
