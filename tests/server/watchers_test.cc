// Watchers over gRPC: many of them, slow ones, and those that a shutdown meets.
#include <fstream>
#include <future>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/contract/errors.h"
#include "proto/contract/status_codec.h"
#include "tests/server/grpc_harness.h"

namespace modelstore::server {
namespace {

int ThreadsOfThisProcess() {
  std::ifstream status("/proc/self/status");
  int threads = 0;
  for (std::string line; std::getline(status, line);) {
    absl::string_view rest = line;
    if (absl::ConsumePrefix(&rest, "Threads:")) (void)absl::SimpleAtoi(rest, &threads);
  }
  return threads;
}

// A stream of events, with its context.
struct Watcher {
  explicit Watcher(v1::ModelStore::Stub& stub, const std::string& cursor = "")
      : context(absl::Seconds(60)) {
    v1::WatchModelRequest request;
    request.set_name("models/m");
    request.set_cursor(cursor);
    reader = stub.WatchModel(&context, request);
  }
  // The next event that is no heartbeat; without a kind at the end.
  v1::WatchModelResponse Next() {
    v1::WatchModelResponse event;
    do {
      event.Clear();
    } while (reader->Read(&event) && event.has_heartbeat());
    return event;
  }

  Context context;
  std::unique_ptr<grpc::ClientReader<v1::WatchModelResponse>> reader;
};

class WatchersTest : public testing::Test {
 protected:
  static ServerConfig Config() {
    ServerConfig config = TestConfig();
    config.max_streams = 1000;
    config.max_streams_per_connection = 1000;
    return config;
  }
  void SetUp() override {
    harness_.SaveModel("models/m", 1);
    harness_.SaveModel("models/m", 1);
  }
  grpc::Status SetAlias(int64_t version, const std::string& note = "") {
    v1::SetAliasRequest request;
    request.set_name("models/m/aliases/production");
    request.set_version(version);
    request.set_note(note);
    Context context;
    v1::Alias alias;
    return harness_.store().SetAlias(&context, request, &alias);
  }

  GrpcHarness harness_{Config()};
};

TEST_F(WatchersTest, HundredsOfThemHoldNoThreadAndAllHearAtOnce) {
  constexpr int kWatchers = 400;
  ASSERT_EQ(harness_.Stats().checkpoint_count(), 2);
  std::vector<std::unique_ptr<Watcher>> watchers;
  const auto open = [&] {
    watchers.push_back(std::make_unique<Watcher>(harness_.store()));
    EXPECT_EQ(watchers.back()->Next().state().latest_version(), 2);
  };
  open();
  const int threads = ThreadsOfThisProcess();
  while (watchers.size() < kWatchers) open();
  EXPECT_LE(ThreadsOfThisProcess(), threads + 4);
  EXPECT_EQ(harness_.server().watchers(), kWatchers);
  // Nor a share of what loads need.
  EXPECT_TRUE(Eventually([&] { return harness_.Stats().buffered_bytes() == 0; }));
  const absl::Time begin = absl::Now();
  ASSERT_TRUE(SetAlias(1).ok());
  for (auto& watcher : watchers) {
    EXPECT_EQ(watcher->Next().alias_moved().to_version(), 1);
  }
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  // Those who leave are gone at once, though nothing happens.
  for (auto& watcher : watchers) watcher->context.TryCancel();
  EXPECT_TRUE(Eventually([&] { return harness_.server().watchers() == 0; }));
  for (auto& watcher : watchers) (void)watcher->reader->Finish();
}

TEST_F(WatchersTest, WhatASlowOneIsSentIsCountedUntilItLeaves) {
  Watcher watcher(harness_.store());
  EXPECT_EQ(watcher.Next().state().latest_version(), 2);
  v1::UpdateModelRequest request;
  request.mutable_model()->set_name("models/m");
  request.mutable_update_mask()->add_paths("labels");
  for (int i = 0; i < 64; ++i) {
    (*request.mutable_model()->mutable_labels())[absl::StrCat(i)] = std::string(256, 'x');
  }
  // More than its connection takes in without a reader.
  for (int i = 0; i < 400; ++i) {
    (*request.mutable_model()->mutable_labels())["0"] = absl::StrCat(i);
    Context context;
    v1::Model model;
    ASSERT_TRUE(harness_.store().UpdateModel(&context, request, &model).ok());
  }
  EXPECT_TRUE(Eventually([&] { return harness_.Stats().buffered_bytes() >= 16'000; }));
  watcher.context.TryCancel();
  EXPECT_TRUE(Eventually([&] { return harness_.Stats().buffered_bytes() == 0; }));
  (void)watcher.reader->Finish();
}

TEST_F(WatchersTest, AShutdownEndsThemAtOnceAndTheirCursorLeadsOn) {
  Watcher watcher(harness_.store());
  ASSERT_TRUE(watcher.Next().has_state());
  const absl::Time begin = absl::Now();
  auto stopped = std::async(
      std::launch::async, [&] { return harness_.server().Shutdown(absl::Seconds(20)); });
  EXPECT_EQ(watcher.Next().kind_case(), v1::WatchModelResponse::KIND_NOT_SET);
  const grpc::Status status = watcher.reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_NE(status.error_message().find("shutting down"), std::string::npos);
  const auto detail = ErrorDetailOf(FromGrpcStatus(status));
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason, "SHUTTING_DOWN");
  EXPECT_TRUE(stopped.get().ok());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
}

TEST_F(WatchersTest, ASlowWatcherIsReportedSoAndItsCursorLeadsToTheState) {
  // One that has room for no more than 64 KiB at its end.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 64 << 10);
  auto stub = v1::ModelStore::NewStub(grpc::CreateCustomChannel(
      harness_.server().address(), grpc::InsecureChannelCredentials(), arguments));
  Watcher watcher(*stub);
  std::string cursor = watcher.Next().cursor();
  // Far beyond what the connection holds for it, and what the log keeps.
  for (int i = 0; i < 1300; ++i) {
    ASSERT_TRUE(SetAlias(1 + i % 2, std::string(4096, 'n')).ok());
  }
  int heard = 0;
  for (auto event = watcher.Next(); event.has_alias_moved(); event = watcher.Next()) {
    EXPECT_EQ(event.alias_moved().to_version(), 1 + heard % 2);
    cursor = event.cursor();
    ++heard;
  }
  EXPECT_LT(heard, 300);
  const grpc::Status status = watcher.reader->Finish();
  EXPECT_TRUE(IsOverloaded(FromGrpcStatus(status))) << status.error_message();
  Watcher again(harness_.store(), cursor);
  EXPECT_EQ(again.Next().state().aliases().at("production"), 2);
}

TEST_F(WatchersTest, TheModelsDeletionEndsThemWithOk) {
  Watcher watcher(harness_.store());
  const std::string uid = watcher.Next().state().uid();
  v1::DeleteModelRequest request;
  request.set_name("models/m");
  request.set_force(true);
  v1::DeleteModelResponse response;
  Context context;
  ASSERT_TRUE(harness_.store().DeleteModel(&context, request, &response).ok());
  EXPECT_EQ(watcher.Next().model_deleted().model_uid(), uid);
  EXPECT_EQ(watcher.Next().kind_case(), v1::WatchModelResponse::KIND_NOT_SET);
  EXPECT_TRUE(watcher.reader->Finish().ok());
  Watcher late(harness_.store());
  EXPECT_EQ(late.Next().kind_case(), v1::WatchModelResponse::KIND_NOT_SET);
  EXPECT_EQ(late.reader->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace modelstore::server
