// The version of the library's headers, for conditional compilation.
//
//   #if MODELSTORE_VERSION_MAJOR == 0 && MODELSTORE_VERSION_MINOR < 2
//   ...
//   #endif
//
// Compatibility:
//   Source: semantic versioning. From 1.0 on, only a major version removes anything from
//     these headers. Before 1.0, minor versions may, and patch versions do not. Fields of
//     structs, overloads, default arguments and enumerators may be added in any version:
//     use designated initializers for structs, and a `default` in every `switch` over an
//     enum. Namespaces named `internal` are not part of the API.
//   Binary: none. Compile the program and the library from the same version; the linker
//     does not detect a mismatch.
//   Protocol: modelstore.v1 only grows. A client and a server of the same major version
//     work together, with the features that both have. An enumerator that the library
//     does not know is read as kUnknown where the enum has it.
#pragma once

// Equal to the version of the CMake project; its configuration fails if they differ.
#define MODELSTORE_VERSION_MAJOR 0
#define MODELSTORE_VERSION_MINOR 1
#define MODELSTORE_VERSION_PATCH 0
