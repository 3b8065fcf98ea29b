// Which version of the library a program is compiled with.
//
//   #if MODELSTORE_VERSION_MAJOR == 0 && MODELSTORE_VERSION_MINOR < 2
//   ...
//   #endif
//
// What stays compatible:
//   Source: versions are semantic. From 1.0 on only a major version takes anything away
//     from these headers; before it a minor version may, and a patch version never does.
//     Fields of structs, overloads, arguments with a default and enumerators are added at
//     any time: initialize structs by the names of their fields, and give a `switch` over
//     an enum a `default`. What is in a namespace `internal` is not for programs.
//   Binary: none. Library and program are compiled from the same version; no symbol tells
//     versions apart when they are linked.
//   Protocol: modelstore.v1 only grows. Every client of a major version works with every
//     server of it, apart from what the older of the two lacks. An enumerator that is
//     newer than the library reads as kUnknown where the enum has it.
#pragma once

// Those of the CMake project: its configuration fails where they differ.
#define MODELSTORE_VERSION_MAJOR 0
#define MODELSTORE_VERSION_MINOR 1
#define MODELSTORE_VERSION_PATCH 0
