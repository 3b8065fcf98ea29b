// Runs Debian's Python, which has PyTorch, and reads what it says.
#pragma once

#include <string>
#include <vector>

#include "google/protobuf/struct.pb.h"

namespace modelstore {

// The JSON objects that a script of this folder writes, one a line. Adds a failure
// to the running test, and returns nothing, if it does not end well.
std::vector<google::protobuf::Struct> RunPython(const std::string& script_and_arguments);

}  // namespace modelstore
