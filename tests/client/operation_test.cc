// Modify, verify, compare, prune and collect: how long each may take, and what becomes of
// it where its stream is cut.
#include "client/internal/operation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <thread>

#include "modelstore/admin.h"
#include "modelstore/inspect.h"
#include "modelstore/modify.h"
#include "modelstore/retention.h"
#include "modelstore/v1/operations.pb.h"
#include "tests/client/hooked_connection.h"
#include "tests/client/test_store.h"

namespace modelstore::support {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr int kForever = 1'000'000;
constexpr char kVersion[] = "models/m/checkpoints/1";

// What one attempt meets: messages of progress, each after `interval`, then `end`.
struct Attempt {
  enum class End { kResult, kCut, kMalformed };
  int messages = 0;
  milliseconds interval{10};
  End end = End::kResult;
};

template <typename Response>
std::string ProgressBytes() {
  Response response;
  response.mutable_progress();
  return response.SerializeAsString();
}
template <typename Response>
std::string ResultBytes() {
  Response response;
  response.mutable_result();
  return response.SerializeAsString();
}

// An operation by its name, what its stream says, and the call of the library.
struct Operation {
  std::string method;
  std::string progress;
  std::string result;
  absl::Status (*call)(Client& client, Deadline deadline);
};

template <typename Response>
Operation Of(std::string method, absl::Status (*call)(Client&, Deadline)) {
  return {std::move(method), ProgressBytes<Response>(), ResultBytes<Response>(), call};
}

std::vector<Operation> AllOperations() {
  return {
      Of<v1::ModifyCheckpointResponse>(
          "ModifyCheckpoint",
          [](Client& c, Deadline d) {
            return ModifyCheckpoint(c, kVersion, EditList().AddPrefix("a."),
                                    {.deadline = d})
                .status();
          }),
      Of<v1::VerifyCheckpointResponse>(
          "VerifyCheckpoint",
          [](Client& c, Deadline d) {
            return VerifyCheckpoint(c, kVersion, {.deadline = d}).status();
          }),
      Of<v1::CompareCheckpointsResponse>(
          "CompareCheckpoints",
          [](Client& c, Deadline d) {
            return CompareCheckpoints(c, kVersion, kVersion, {.deadline = d}).status();
          }),
      Of<v1::PruneCheckpointsResponse>(
          "PruneCheckpoints",
          [](Client& c, Deadline d) {
            return PruneCheckpoints(c, "models/m", {.deadline = d}).status();
          }),
      Of<v1::CollectGarbageResponse>("CollectGarbage",
                                     [](Client& c, Deadline d) {
                                       return CollectGarbage(c, {.deadline = d}).status();
                                     }),
  };
}

class PacedStream final : public Stream {
 public:
  PacedStream(const Operation& operation, Attempt attempt, std::atomic<int>* cancelled)
      : operation_(operation), attempt_(attempt), cancelled_(cancelled) {}

  absl::Status Write(std::string, std::vector<Payload>, Deadline) override {
    return absl::OkStatus();
  }
  absl::Status WritesDone(Deadline) override { return absl::OkStatus(); }
  absl::StatusOr<ReceivedMessage> Read(Deadline deadline) override {
    const Deadline ready = After(attempt_.interval);
    std::this_thread::sleep_until(std::min(ready, deadline));
    if (ready > deadline) return absl::DeadlineExceededError("nothing came");
    if (sent_ < attempt_.messages) {
      ++sent_;
      return Message(operation_.progress);
    }
    switch (attempt_.end) {
      case Attempt::End::kResult:
        return Message(operation_.result);
      case Attempt::End::kMalformed:
        return Message("\xff\xff");
      default:
        return absl::OutOfRangeError("end of the stream");
    }
  }
  absl::Status Finish(Deadline) override {
    return absl::UnavailableError("the connection was cut");
  }
  void Cancel() override { ++*cancelled_; }

 private:
  static ReceivedMessage Message(std::string bytes) {
    auto owner = std::make_shared<std::string>(std::move(bytes));
    ReceivedMessage message;
    message.fragments = {*owner};
    message.owner = std::move(owner);
    return message;
  }

  const Operation& operation_;
  const Attempt attempt_;
  std::atomic<int>* const cancelled_;
  int sent_ = 0;
};

class OperationTest : public ::testing::TestWithParam<Operation> {
 protected:
  // The status of the call whose attempts meet `attempts`; further ones are not foreseen.
  absl::Status Run(ConnectOptions options, std::deque<Attempt> attempts,
                   Deadline deadline = TestDeadline()) {
    TestStore store(options);
    Client direct = store.NewClient();
    EXPECT_TRUE(direct.CreateModel("m").ok());
    auto connection = std::make_shared<HookedConnection>(
        store.connection(), nullptr,
        [&](std::string_view method) -> std::unique_ptr<Stream> {
          EXPECT_EQ(method, GetParam().method);
          ++opened_;
          if (attempts.empty()) return nullptr;
          auto stream =
              std::make_unique<PacedStream>(GetParam(), attempts.front(), &cancelled_);
          attempts.pop_front();
          return stream;
        });
    Client client(connection);
    return GetParam().call(client, deadline);
  }

  int opened_ = 0;
  std::atomic<int> cancelled_{0};
};

TEST_P(OperationTest, MayTakeLongerThanTheStallTimeout) {
  ConnectOptions options;
  options.stall_timeout = milliseconds(300);
  EXPECT_EQ(Run(options, {{.messages = 30, .interval = milliseconds(20)}}),
            absl::OkStatus());
  EXPECT_EQ(opened_, 1);
}

TEST_P(OperationTest, IsRepeatedWhereItIsCutAfterMoreThanTheRetryTimeout) {
  ConnectOptions options;
  options.retry_timeout = milliseconds(400);
  EXPECT_EQ(Run(options, {{.messages = 60, .end = Attempt::End::kCut},
                          // Not as far as before, and more than the timeout again.
                          {.messages = 50, .end = Attempt::End::kCut},
                          {}}),
            absl::OkStatus());
  EXPECT_EQ(opened_, 3);
}

TEST_P(OperationTest, IsCutAndRepeatedWhereTheServerFallsSilent) {
  ConnectOptions options;
  options.stall_timeout = milliseconds(100);
  EXPECT_EQ(Run(options, {{.interval = std::chrono::minutes(1)}, {}}), absl::OkStatus());
  EXPECT_EQ(opened_, 2);
  EXPECT_EQ(cancelled_, 1);
}

TEST_P(OperationTest, IsCancelledByItsDeadline) {
  const absl::Status status = Run({}, {{.messages = kForever}}, After(milliseconds(200)));
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_EQ(opened_, 1);
  EXPECT_EQ(cancelled_, 1);
}

TEST_P(OperationTest, AMalformedMessageEndsIt) {
  const absl::Status status = Run({}, {{.end = Attempt::End::kMalformed}});
  EXPECT_TRUE(absl::IsInternal(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().method));
  EXPECT_EQ(opened_, 1);
}

INSTANTIATE_TEST_SUITE_P(Each, OperationTest, ::testing::ValuesIn(AllOperations()),
                         [](const ::testing::TestParamInfo<Operation>& info) {
                           return info.param.method;
                         });

}  // namespace
}  // namespace modelstore::support
