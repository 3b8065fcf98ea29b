// The deadline in the options of every call: a server that does not answer, one that
// answers for ever, and options that are kept.
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "modelstore/admin.h"
#include "modelstore/inspect.h"
#include "modelstore/lifecycle.h"
#include "modelstore/modify.h"
#include "modelstore/retention.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/mutex.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using support::TensorSet;
using support::TestDeadline;
using support::TestStore;

constexpr char kModel[] = "models/m";
constexpr char kVersion[] = "models/m/checkpoints/1";
constexpr char kLease[] = "models/m/checkpoints/1/leases/w";

absl::Status TooLate() { return absl::DeadlineExceededError("no answer came in time"); }

// Takes every message and answers none.
class SilentStream final : public Stream {
 public:
  absl::Status Write(std::string, std::vector<Payload>, Deadline) override {
    return absl::OkStatus();
  }
  absl::Status WritesDone(Deadline) override { return absl::OkStatus(); }
  absl::StatusOr<ReceivedMessage> Read(Deadline deadline) override {
    std::this_thread::sleep_until(deadline);
    return TooLate();
  }
  absl::Status Finish(Deadline deadline) override {
    std::this_thread::sleep_until(deadline);
    return TooLate();
  }
  void Cancel() override {}
};

class SilentConnection : public Connection {
 public:
  explicit SilentConnection(ConnectOptions options) : options_(options) {}

  absl::StatusOr<std::string> Call(std::string_view, std::string,
                                   Deadline deadline) override {
    std::this_thread::sleep_until(deadline);
    return TooLate();
  }
  absl::StatusOr<std::unique_ptr<Stream>> Open(std::string_view, int, Deadline) override {
    return std::make_unique<SilentStream>();
  }
  const ConnectOptions& options() const override { return options_; }

 private:
  const ConnectOptions options_;
};

// Nothing but the deadline of a call ends it.
ConnectOptions PatientOptions() {
  return {.stall_timeout = hours(10), .retry_timeout = hours(10)};
}

struct NamedCall {
  std::string name;
  std::function<absl::Status(const Client&, Deadline)> run;
};

SaveContent OneTensor() { return TensorSet({.seed = 1, .bytes = 1000}).Content(); }

std::vector<NamedCall> MethodsOfClient() {
  using C = const Client&;
  using D = Deadline;
  return {
      {"CreateModel",
       [](C c, D d) { return c.CreateModel("m", {.deadline = d}).status(); }},
      {"GetModel", [](C c, D d) { return c.GetModel(kModel, {.deadline = d}).status(); }},
      {"ListModels", [](C c, D d) { return c.ListModels({.deadline = d}).status(); }},
      {"UpdateModel",
       [](C c, D d) { return c.UpdateModel(kModel, {}, {.deadline = d}).status(); }},
      {"DeleteModel", [](C c, D d) { return c.DeleteModel(kModel, {.deadline = d}); }},
      {"GetCheckpoint",
       [](C c, D d) { return c.GetCheckpoint(kVersion, {.deadline = d}).status(); }},
      {"ListCheckpoints",
       [](C c, D d) { return c.ListCheckpoints(kModel, {.deadline = d}).status(); }},
      {"GetCheckpointPage",
       [](C c, D d) {
         return c.GetCheckpointPage(kModel, "", {.deadline = d}).status();
       }},
      {"UpdateCheckpoint",
       [](C c, D d) {
         return c.UpdateCheckpoint(kVersion, {}, {.deadline = d}).status();
       }},
      {"DeleteCheckpoint",
       [](C c, D d) { return c.DeleteCheckpoint(kVersion, {.deadline = d}); }},
      {"ListTensors",
       [](C c, D d) { return c.ListTensors(kVersion, {.deadline = d}).status(); }},
      {"GetSection",
       [](C c, D d) {
         return c.GetSection(kVersion, "extra", {.deadline = d}).status();
       }},
      {"GetAttachment",
       [](C c, D d) {
         return c.GetAttachment(kVersion, "card.md", {.deadline = d}).status();
       }},
      {"SaveAsync",
       [](C c, D d) {
         return c.SaveAsync(kModel, OneTensor(), {.deadline = d}).Finish().status();
       }},
      {"PlanLoad",
       [](C c, D d) { return c.PlanLoad(kVersion, {.deadline = d}).status(); }},
  };
}

std::vector<NamedCall> FreeFunctions() {
  using C = const Client&;
  using D = Deadline;
  return {
      {"GetServerInfo",
       [](C c, D d) { return GetServerInfo(c, {.deadline = d}).status(); }},
      {"GetStats", [](C c, D d) { return GetStats(c, {.deadline = d}).status(); }},
      {"ListUploads",
       [](C c, D d) { return ListUploads(c, "models/-", {.deadline = d}).status(); }},
      {"DeleteUpload",
       [](C c, D d) { return DeleteUpload(c, "models/m/uploads/u", {.deadline = d}); }},
      {"CollectGarbage",
       [](C c, D d) { return CollectGarbage(c, {.deadline = d}).status(); }},
      {"SetRetentionPolicy",
       [](C c, D d) {
         return SetRetentionPolicy(c, kModel, {.keep_latest = 1}, {.deadline = d});
       }},
      {"GetRetentionPolicy",
       [](C c, D d) { return GetRetentionPolicy(c, kModel, {.deadline = d}).status(); }},
      {"PruneCheckpoints",
       [](C c, D d) { return PruneCheckpoints(c, kModel, {.deadline = d}).status(); }},
      {"VerifyCheckpoint",
       [](C c, D d) { return VerifyCheckpoint(c, kVersion, {.deadline = d}).status(); }},
      {"CompareCheckpoints",
       [](C c, D d) {
         return CompareCheckpoints(c, kVersion, kVersion, {.deadline = d}).status();
       }},
      {"ModifyCheckpoint",
       [](C c, D d) {
         return ModifyCheckpoint(c, kVersion, EditList().AddPrefix("a."), {.deadline = d})
             .status();
       }},
      {"History",
       [](C c, D d) { return History(c, kVersion, {.deadline = d}).status(); }},
      {"SetAlias",
       [](C c, D d) {
         return SetAlias(c, "models/m/aliases/a", 1, {.deadline = d}).status();
       }},
      {"DeleteAlias",
       [](C c, D d) { return DeleteAlias(c, "models/m/aliases/a", {.deadline = d}); }},
      {"ListAliases",
       [](C c, D d) { return ListAliases(c, kModel, {.deadline = d}).status(); }},
      {"ListAliasMoves",
       [](C c, D d) { return ListAliasMoves(c, kModel, {.deadline = d}).status(); }},
      {"AcquireLease",
       [](C c, D d) {
         return AcquireLease(c, kVersion, "w", hours(1), {.deadline = d}).status();
       }},
      {"ReleaseLease", [](C c, D d) { return ReleaseLease(c, kLease, {.deadline = d}); }},
      {"ListLeases",
       [](C c, D d) { return ListLeases(c, kModel, {.deadline = d}).status(); }},
      {"CopyCheckpoint",
       [](C c, D d) {
         return CopyCheckpoint(c, kVersion, kModel, {.deadline = d}).status();
       }},
  };
}

void ExpectEndsAtItsDeadline(const std::vector<NamedCall>& calls) {
  const Client client(std::make_shared<SilentConnection>(PatientOptions()));
  for (const NamedCall& call : calls) {
    const auto begin = steady_clock::now();
    const absl::Status status = call.run(client, After(milliseconds(20)));
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded)
        << call.name << ": " << status;
    EXPECT_GE(steady_clock::now() - begin, milliseconds(10)) << call.name;
    EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(20)) << call.name;
  }
}

TEST(CallDeadlineTest, EveryMethodOfClientEndsAtItsDeadline) {
  ExpectEndsAtItsDeadline(MethodsOfClient());
}

TEST(CallDeadlineTest, EveryFreeFunctionEndsAtItsDeadline) {
  ExpectEndsAtItsDeadline(FreeFunctions());
}

// Answers every unary call, in time, with the same bytes.
class AnsweringConnection final : public SilentConnection {
 public:
  AnsweringConnection(ConnectOptions options, const google::protobuf::Message& answer)
      : SilentConnection(options), answer_(answer.SerializeAsString()) {}

  absl::StatusOr<std::string> Call(std::string_view, std::string,
                                   Deadline deadline) override {
    std::this_thread::sleep_for(milliseconds(1));
    if (steady_clock::now() >= deadline) return TooLate();
    return answer_;
  }

 private:
  const std::string answer_;
};

TEST(CallDeadlineTest, OneDeadlineHoldsForAllPagesOfAList) {
  v1::ListModelsResponse page;
  page.set_next_page_token("more");
  // By default too: 150 s of the options are 60 ms here.
  const Client client(std::make_shared<AnsweringConnection>(
      ConnectOptions{.stall_timeout = milliseconds(30),
                     .retry_timeout = milliseconds(30)},
      page));
  const auto begin = steady_clock::now();
  for (const ListModelsOptions& options :
       {ListModelsOptions{.deadline = After(milliseconds(20))}, ListModelsOptions{}}) {
    EXPECT_TRUE(absl::IsDeadlineExceeded(client.ListModels(options).status()));
  }
  EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(CallDeadlineTest, OptionsOfACallAreUsedAgainAfterItsDefaultTimeHasPassed) {
  v1::Model model;
  model.set_name(kModel);
  const Client client(std::make_shared<AnsweringConnection>(
      ConnectOptions{.stall_timeout = milliseconds(500),
                     .retry_timeout = milliseconds(500)},
      model));
  const CallOptions kept;
  const Deadline first_over = After(milliseconds(1000));
  ASSERT_TRUE(client.GetModel(kModel, kept).ok());
  EXPECT_FALSE(kept.deadline.has_value());
  std::this_thread::sleep_until(first_over);
  const auto again = client.GetModel(kModel, kept);
  EXPECT_TRUE(again.ok()) << again.status();
}

// Passes everything on, and keeps the latest deadline of all that was asked.
class RecordingConnection final : public Connection {
 public:
  explicit RecordingConnection(Connection& to) : to_(to) {}

  absl::StatusOr<std::string> Call(std::string_view method, std::string request,
                                   Deadline deadline) override {
    Record(deadline);
    return to_.Call(method, std::move(request), deadline);
  }
  absl::StatusOr<std::unique_ptr<Stream>> Open(std::string_view method, int lane,
                                               Deadline deadline) override {
    Record(deadline);
    return to_.Open(method, lane, deadline);
  }
  const ConnectOptions& options() const override { return options_; }

  // Since the last time.
  Deadline TakeLatest() {
    MutexLock lock(mutex_);
    return std::exchange(latest_, Deadline::min());
  }

 private:
  void Record(Deadline deadline) {
    MutexLock lock(mutex_);
    latest_ = std::max(latest_, deadline);
  }

  Connection& to_;
  const ConnectOptions options_ = PatientOptions();
  Mutex mutex_;
  Deadline latest_ GUARDED_BY(mutex_) = Deadline::min();
};

// An hour cannot be waited for: what it is counted from is compared.
TEST(CallDeadlineTest, OptionsOfATransferOrAnOperationCountTheirHourFromEachUse) {
  TestStore store;
  auto recording = std::make_shared<RecordingConnection>(store.connection());
  const Client client(recording);
  const SaveOptions save;
  const LoadOptions load;
  const VerifyOptions verify;
  const ModifyOptions modify = {.validate_only = true};
  const std::vector<NamedCall> calls = {
      {"SaveAsync",
       [&](const Client& c, Deadline) {
         return c.SaveAsync(kModel, OneTensor(), save).Durable(TestDeadline()).status();
       }},
      {"PlanLoad",
       [&](const Client& c, Deadline) { return c.PlanLoad(kVersion, load).status(); }},
      {"VerifyCheckpoint",
       [&](const Client& c, Deadline) {
         return VerifyCheckpoint(c, kVersion, verify).status();
       }},
      {"ModifyCheckpoint",
       [&](const Client& c, Deadline) {
         return ModifyCheckpoint(c, kVersion, EditList().AddPrefix("a."), modify)
             .status();
       }},
  };
  for (const NamedCall& call : calls) {
    SCOPED_TRACE(call.name);
    for (int use = 0; use < 2; ++use) {
      std::this_thread::sleep_for(milliseconds(5));
      const Deadline before = After(hours(1));
      const absl::Status status = call.run(client, Deadline::max());
      const Deadline after = After(hours(1));
      EXPECT_TRUE(status.ok()) << status;
      const Deadline given = recording->TakeLatest();
      EXPECT_GE(given, before) << "use " << use;
      EXPECT_LE(given, after) << "use " << use;
    }
  }
}

}  // namespace
}  // namespace modelstore
