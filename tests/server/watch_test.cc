// WatchModel as a session: what a watcher is told, in which order, and where it
// stands after any message.
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "proto/contract/mutex.h"
#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

using Event = v1::WatchModelResponse;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class WatchTest : public testing::Test {
 protected:
  void SetUp() override { Save(2); }

  void Save(int versions) {
    for (int i = 0; i < versions; ++i) {
      auto saved = harness_.SaveTensors(
          "models/iris", {MakeTensor("w", v1::DTYPE_INT32, {1}, MakeBytes(4, ++seed_))});
      ASSERT_TRUE(saved.ok()) << saved.status();
    }
  }
  absl::StatusOr<std::unique_ptr<OutboundSession>> Watch(
      const std::string& cursor = "", const std::string& name = "models/iris") {
    v1::WatchModelRequest request;
    request.set_name(name);
    request.set_cursor(cursor);
    return harness_.service().OpenOutbound(absl::StrCat(kStore, "WatchModel"),
                                           request.SerializeAsString());
  }
  // What is there to be told now; the last has no kind once there is no more.
  static absl::StatusOr<Event> Next(OutboundSession& session) {
    auto message = session.Next();
    if (!message.ok()) return message.status();
    if (!message->has_value()) return absl::OutOfRangeError("the stream is over");
    Event event;
    if (!event.ParseFromString((*message)->head)) return absl::InternalError("bad");
    return event;
  }
  static std::vector<Event> All(OutboundSession& session) {
    std::vector<Event> events;
    for (auto event = Next(session); event.ok(); event = Next(session)) {
      if (event->kind_case() == Event::KIND_NOT_SET) break;
      events.push_back(*event);
    }
    return events;
  }
  static bool Idle(OutboundSession& session) {
    const bool waits = session.Wait([] {}).has_value();
    session.CancelWait();
    return waits;
  }
  absl::Status SetAlias(const std::string& alias, int64_t version) {
    storage::Aliases::Move move;
    move.alias = alias;
    move.version = version;
    return harness_.store().aliases().Set("iris", move).status();
  }
  absl::Status DeleteModel() {
    return harness_.store().models().Delete("iris", true, {}).status();
  }

  Harness harness_;
  uint32_t seed_ = 0;
};

TEST_F(WatchTest, ThePresentStateComesFirstAndThenEachChangeInOrder) {
  auto session = Watch();
  ASSERT_TRUE(session.ok()) << session.status();
  auto first = Next(**session);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->state().latest_version(), 2);
  EXPECT_FALSE(first->cursor().empty());
  EXPECT_TRUE(All(**session).empty());

  Save(1);
  ASSERT_TRUE(SetAlias("production", 3).ok());
  ASSERT_TRUE(
      harness_.store().checkpoints().Change("iris", 2, {.pinned = true}, {}).ok());
  ASSERT_TRUE(harness_.store().checkpoints().Delete("iris", 1, {}).ok());
  storage::Models::Update update;
  update.description = "flowers";
  ASSERT_TRUE(harness_.store().models().Change("iris", update, {}).ok());
  const auto events = All(**session);
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0].committed().name(), "models/iris/checkpoints/3");
  EXPECT_EQ(events[0].committed().tensor_count(), 1);
  EXPECT_EQ(events[1].alias_moved().alias(), "production");
  EXPECT_EQ(events[1].alias_moved().to_version(), 3);
  EXPECT_TRUE(events[2].updated().pinned());
  EXPECT_EQ(events[3].deleted_version(), 1);
  EXPECT_EQ(events[4].model_updated().description(), "flowers");
}

TEST_F(WatchTest, WithAnyCursorAReconnectMissesNothingAndSeesNothingTwice) {
  auto session = Watch();
  ASSERT_TRUE(session.ok()) << session.status();
  std::vector<std::string> cursors = {Next(**session)->cursor()};
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(SetAlias("a", 1 + i % 2).ok());
  const auto events = All(**session);
  ASSERT_EQ(events.size(), 20u);
  for (const auto& event : events) cursors.push_back(event.cursor());
  for (size_t seen = 0; seen < cursors.size(); ++seen) {
    auto again = Watch(cursors[seen]);
    ASSERT_TRUE(again.ok()) << again.status();
    const auto rest = All(**again);
    ASSERT_EQ(rest.size(), events.size() - seen);
    for (size_t i = 0; i < rest.size(); ++i) {
      EXPECT_EQ(rest[i].SerializeAsString(), events[seen + i].SerializeAsString());
    }
  }
}

TEST_F(WatchTest, AVersionThatIsMissingAgainIsReportedByItsName) {
  auto session = Watch();
  ASSERT_TRUE(session.ok()) << session.status();
  (void)All(**session);
  Save(1);
  ASSERT_TRUE(harness_.store().checkpoints().Delete("iris", 3, {}).ok());
  const auto events = All(**session);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].committed().name(), "models/iris/checkpoints/3");
  EXPECT_EQ(events[0].committed().tensor_count(), 0);
  EXPECT_EQ(events[1].deleted_version(), 3);
}

TEST_F(WatchTest, ACursorTooOldIsAnsweredByTheState) {
  auto session = Watch();
  ASSERT_TRUE(session.ok()) << session.status();
  const std::string old = Next(**session)->cursor();
  for (int i = 0; i < 1100; ++i) ASSERT_TRUE(SetAlias("a", 1 + i % 2).ok());
  auto again = Watch(old);
  ASSERT_TRUE(again.ok()) << again.status();
  auto state = Next(**again);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->state().aliases().at("a"), 2);
  EXPECT_TRUE(All(**again).empty());
  // The one that was connected all the time has fallen behind: it is told so, and
  // its cursor leads on.
  EXPECT_THAT(Next(**session), FailsWith(absl::StatusCode::kUnavailable, "last cursor"));
}

TEST_F(WatchTest, TheDeletionOfTheModelEndsTheStream) {
  auto session = Watch();
  ASSERT_TRUE(session.ok()) << session.status();
  const std::string uid = Next(**session)->state().uid();
  ASSERT_TRUE(DeleteModel().ok());
  Save(1);  // One of the same name, which is another model.
  auto last = Next(**session);
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(last->model_deleted().model_uid(), uid);
  EXPECT_THAT(Next(**session), FailsWith(absl::StatusCode::kOutOfRange, "over"));
  EXPECT_THAT(Watch(last->cursor()), FailsWith(kInvalid, "cursor"));
}

TEST_F(WatchTest, BadRequestsAreRefused) {
  EXPECT_THAT(Watch("", "iris"), FailsWith(kInvalid, "name"));
  EXPECT_THAT(Watch("", "models/absent"),
              FailsWith(absl::StatusCode::kNotFound, "models/absent"));
  EXPECT_THAT(Watch("7"), FailsWith(kInvalid, "cursor"));
  EXPECT_THAT(Watch(std::string(10'000, 'x')), FailsWith(kInvalid, "cursor"));
  auto other = harness_.SaveTensors("models/other", {});
  ASSERT_TRUE(other.ok()) << other.status();
  auto session = Watch("", "models/other");
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_THAT(Watch(Next(**session)->cursor()), FailsWith(kInvalid, "cursor"));
}

TEST_F(WatchTest, AnIdleWatcherWaitsAndEveryChangeWakesItOnce) {
  auto session = Watch();
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_FALSE(Idle(**session));  // It has the state to tell.
  (void)All(**session);
  int woken = 0;
  ASSERT_TRUE((*session)->Wait([&] { ++woken; }).has_value());
  ASSERT_TRUE(harness_.store().leases().Acquire("iris", 1, "w", absl::Seconds(1)).ok());
  EXPECT_EQ(woken, 0);
  ASSERT_TRUE(SetAlias("a", 1).ok());
  ASSERT_TRUE(SetAlias("a", 2).ok());
  EXPECT_EQ(woken, 1);
  EXPECT_FALSE((*session)->CancelWait());
  EXPECT_FALSE(Idle(**session));
  EXPECT_EQ(Next(**session)->alias_moved().to_version(), 1);
  EXPECT_FALSE(Idle(**session));  // One more.
  EXPECT_EQ(Next(**session)->alias_moved().to_version(), 2);
  EXPECT_TRUE(Idle(**session));
  // Another model is none of its business.
  ASSERT_TRUE(harness_.SaveTensors("models/other", {}).ok());
  EXPECT_TRUE(Idle(**session));
  ASSERT_TRUE(SetAlias("a", 0).ok());
  ASSERT_TRUE(harness_.store().leases().Release("iris", 1, "w").ok());
  (void)All(**session);
  EXPECT_TRUE(Idle(**session));
  ASSERT_TRUE(DeleteModel().ok());
  EXPECT_FALSE(Idle(**session));
}

TEST_F(WatchTest, OneToWhomNothingHappensHearsThatItIsConnected) {
  ServiceOptions options;
  options.watch_heartbeat = absl::Milliseconds(20);
  auto service = MakeService(&harness_.store(), options);
  v1::WatchModelRequest request;
  request.set_name("models/iris");
  auto session = service->OpenOutbound(absl::StrCat(kStore, "WatchModel"),
                                       request.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  const std::string cursor = Next(**session)->cursor();
  const auto until = (*session)->Wait([] {});
  ASSERT_TRUE(until.has_value());
  EXPECT_TRUE((*session)->CancelWait());
  absl::SleepFor(*until - absl::Now());
  auto alive = Next(**session);
  ASSERT_TRUE(alive.ok()) << alive.status();
  EXPECT_TRUE(alive->has_heartbeat());
  EXPECT_EQ(alive->cursor(), cursor);
  session->reset();
}

// Changes and waits at the same time: none is slept through.
TEST_F(WatchTest, NoChangeIsSleptThrough) {
  auto session = Watch();
  ASSERT_TRUE(session.ok()) << session.status();
  (void)All(**session);
  constexpr int kChanges = 2000;
  std::atomic<int> told = 0;
  std::thread writer([&] {
    for (int i = 0; i < kChanges; ++i) {
      // The log keeps no more than 1024.
      while (i - told > 500) std::this_thread::yield();
      EXPECT_TRUE(SetAlias("a", 1 + i % 2).ok());
    }
  });
  Mutex mutex;
  CondVar changed;
  bool woken = false;
  while (told < kChanges) {
    {
      MutexLock lock(mutex);
      woken = false;
    }
    const bool waits = (*session)
                           ->Wait([&] {
                             MutexLock lock(mutex);
                             woken = true;
                             changed.NotifyAll();
                           })
                           .has_value();
    if (waits) {
      MutexLock lock(mutex);
      const bool heard = changed.WaitFor(mutex, absl::Seconds(20), [&] { return woken; });
      EXPECT_TRUE(heard);
    }
    auto event = Next(**session);
    EXPECT_TRUE(event.ok()) << event.status();
    if (HasFailure()) break;
    if (event->has_alias_moved()) ++told;
  }
  if (HasFailure()) told = kChanges;  // The writer waits for nobody any more.
  writer.join();
}

}  // namespace
}  // namespace modelstore::server
