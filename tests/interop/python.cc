#include "tests/interop/python.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <sstream>

#include "google/protobuf/util/json_util.h"

namespace modelstore {

std::vector<google::protobuf::Struct> RunPython(const std::string& script_and_arguments) {
  // The system's interpreter, whatever else is called python3 here. Warnings of
  // PyTorch about its own arguments are no part of the answer.
  const std::string command =
      "/usr/bin/python3 -W ignore " MODELSTORE_INTEROP_SCRIPTS "/" + script_and_arguments;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) {
    ADD_FAILURE() << "cannot run " << command;
    return {};
  }
  std::string output;
  std::array<char, 1 << 16> buffer;
  for (size_t n; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    output.append(buffer.data(), n);
  }
  EXPECT_EQ(pclose(pipe), 0) << command;
  std::vector<google::protobuf::Struct> objects;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    const auto status =
        google::protobuf::util::JsonStringToMessage(line, &objects.emplace_back());
    EXPECT_TRUE(status.ok()) << status.ToString() << ": " << line;
  }
  return objects;
}

}  // namespace modelstore
