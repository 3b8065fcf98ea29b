// A connection of which a test answers some calls and streams itself.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "modelstore/connection.h"

namespace modelstore::support {

// Takes what is written; gives `messages`, then ends with `status`.
class ScriptedStream final : public Stream {
 public:
  ScriptedStream(std::vector<std::string> messages, absl::Status status)
      : messages_(std::move(messages)), status_(std::move(status)) {}

  absl::Status Write(std::string, std::vector<Payload>, Deadline) override {
    return absl::OkStatus();
  }
  absl::Status WritesDone(Deadline) override { return absl::OkStatus(); }
  absl::StatusOr<ReceivedMessage> Read(Deadline) override {
    if (next_ == messages_.size()) return absl::OutOfRangeError("end of the stream");
    ReceivedMessage message;
    message.fragments.emplace_back(messages_[next_++]);
    return message;
  }
  absl::Status Finish(Deadline) override { return status_; }
  void Cancel() override {}

 private:
  const std::vector<std::string> messages_;
  const absl::Status status_;
  size_t next_ = 0;
};

// `method` is the last part of the name. What a hook does not answer goes on to `to`.
class HookedConnection final : public Connection {
 public:
  using CallHook = std::function<std::optional<absl::StatusOr<std::string>>(
      std::string_view method, const std::string& request)>;
  using OpenHook = std::function<std::unique_ptr<Stream>(std::string_view method)>;

  explicit HookedConnection(Connection& to, CallHook call = nullptr,
                            OpenHook open = nullptr)
      : to_(to), call_(std::move(call)), open_(std::move(open)) {}

  absl::StatusOr<std::string> Call(std::string_view method, std::string request,
                                   Deadline deadline) override {
    if (call_ != nullptr) {
      auto answer = call_(method.substr(method.rfind('/') + 1), request);
      if (answer.has_value()) return *std::move(answer);
    }
    return to_.Call(method, std::move(request), deadline);
  }
  absl::StatusOr<std::unique_ptr<Stream>> Open(std::string_view method, int lane,
                                               Deadline deadline) override {
    if (open_ != nullptr) {
      auto stream = open_(method.substr(method.rfind('/') + 1));
      if (stream != nullptr) return stream;
    }
    return to_.Open(method, lane, deadline);
  }
  const ConnectOptions& options() const override { return to_.options(); }

 private:
  Connection& to_;
  const CallHook call_;
  const OpenHook open_;
};

}  // namespace modelstore::support
