#include "tests/benchmarks/peer.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace modelstore::bench {
namespace {

// The value of `key` in a flat JSON object of numbers and plain strings.
std::string JsonField(const std::string& object, const std::string& key) {
  const std::string mark = absl::StrCat("\"", key, "\": ");
  size_t at = object.find(mark);
  if (at == std::string::npos) return "";
  at += mark.size();
  if (object[at] == '"') return object.substr(at + 1, object.find('"', at + 1) - at - 1);
  return object.substr(at, object.find_first_of(",}", at) - at);
}

}  // namespace

absl::StatusOr<TorchPeer> TorchPeer::Start(const std::string& script,
                                           const std::vector<int64_t>& elements,
                                           const std::string& log) {
  // Debian's torch runs under Debian's Python; another may come first in PATH.
  absl::StatusOr<Process> process =
      Process::Start({"/usr/bin/python3", script}, log, true);
  if (!process.ok()) return process.status();
  TorchPeer peer(*std::move(process));
  absl::StatusOr<std::string> built =
      peer.Ask(absl::StrCat("build ", absl::StrJoin(elements, " ")));
  if (!built.ok()) return built.status();
  peer.versions_ = absl::StrCat("torch ", JsonField(*built, "torch"), " under Python ",
                                JsonField(*built, "python"));
  return peer;
}

absl::StatusOr<std::string> TorchPeer::Ask(const std::string& line) {
  if (absl::Status s = process_.WriteLine(line); !s.ok()) return s;
  absl::StatusOr<std::string> answer = process_.ReadLine(300);
  if (!answer.ok()) return answer.status();
  if (const std::string error = JsonField(*answer, "error"); !error.empty()) {
    return absl::InternalError(absl::StrCat("torch_peer.py: ", error));
  }
  return answer;
}

absl::StatusOr<double> TorchPeer::Run(const std::string& command,
                                      const std::string& path) {
  absl::StatusOr<std::string> answer = Ask(absl::StrCat(command, " ", path));
  if (!answer.ok()) return answer.status();
  return std::atof(JsonField(*answer, "seconds").c_str());
}

}  // namespace modelstore::bench
