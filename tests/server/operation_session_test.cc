// OperationStream: what every long call sends, and when it ends.
#include "server/core/operation_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "absl/time/clock.h"
#include "modelstore/v1/operations.pb.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using Then = OperationSession::Then;

// Does what the test gives it: each step calls `step` with its number, from 0.
class ScriptedSession final : public OperationSession {
 public:
  using Script = std::function<absl::StatusOr<Then>(ScriptedSession&, int)>;
  ScriptedSession(ServiceContext& context, Script step)
      : OperationSession(context), step_(std::move(step)) {}

  absl::StatusOr<Then> Step() override { return step_(*this, steps_++); }
  std::string Progress() const override { return "progress"; }
  std::string Result() override { return "result"; }

  void SendPart() {
    v1::VerifyCheckpointResponse response;
    response.mutable_finding()->set_tensor("model:w");
    Send(response);
  }
  using OperationSession::CheckCancelled;

 private:
  const Script step_;
  int steps_ = 0;
};

class OperationSessionTest : public testing::Test {
 protected:
  OperationStream Start(ScriptedSession::Script step) {
    return OperationStream(std::make_unique<ScriptedSession>(context_, std::move(step)));
  }
  // The messages to the end, as "progress", "part" and "result"; waits are waited for.
  // `each` is called before each Next().
  absl::Status Read(
      OperationStream& stream, const std::function<void()>& each = [] {}) {
    for (;;) {
      each();
      const absl::Time begin = absl::Now();
      auto message = stream.Next();
      longest_ = std::max(longest_, absl::Now() - begin);
      if (!message.ok()) return message.status();
      if (!message->has_value()) return absl::OkStatus();
      if ((*message)->again_after) {
        absl::SleepFor(*(*message)->again_after);
        continue;
      }
      const std::string& head = (*message)->head;
      told_.push_back(head == "progress" || head == "result" ? head : "part");
    }
  }

  ServiceContext context_;
  std::vector<std::string> told_;
  // Of a call of Next().
  absl::Duration longest_;
};

TEST_F(OperationSessionTest, TheLastProgressAndTheResultFollowThePartsOfTheAnswer) {
  auto stream = Start([](ScriptedSession& session, int step) -> absl::StatusOr<Then> {
    session.SendPart();
    return step == 0 ? session.Again() : session.Done();
  });
  EXPECT_TRUE(Read(stream).ok());
  EXPECT_THAT(told_, ElementsAre("part", "part", "progress", "result"));
  auto after = stream.Next();
  EXPECT_TRUE(after.ok() && !after->has_value()) << "nothing follows the result";
}

TEST_F(OperationSessionTest, ProgressIsSentEverySecondWhileStepsAreTaken) {
  auto stream = Start([](ScriptedSession& session, int step) -> absl::StatusOr<Then> {
    absl::SleepFor(absl::Milliseconds(10));
    return step < 60 ? session.Again(absl::Milliseconds(20)) : session.Done();
  });
  EXPECT_TRUE(Read(stream).ok());
  // Of 1.8 s at least.
  EXPECT_GE(told_.size(), 4u);
  EXPECT_EQ(told_.front(), "progress");
  EXPECT_EQ(told_.back(), "result");
}

TEST_F(OperationSessionTest, ProgressIsSentWhileWorkRunsAsideAndNoThreadIsHeld) {
  int steps = 0;
  auto stream = Start([&](ScriptedSession& session, int step) -> absl::StatusOr<Then> {
    steps = step + 1;
    const auto work = [] {
      absl::SleepFor(absl::Milliseconds(1200));
      return absl::OkStatus();
    };
    return step == 0 ? session.Aside(work) : session.Done(work);
  });
  EXPECT_TRUE(Read(stream).ok());
  EXPECT_EQ(steps, 2);
  EXPECT_GE(told_.size(), 5u);
  EXPECT_EQ(told_.back(), "result");
  EXPECT_LT(longest_, absl::Milliseconds(800)) << "a step waits for no work";
}

TEST_F(OperationSessionTest, PartsThatWorkAsideFoundComeOnceItIsOver) {
  auto stream = Start([](ScriptedSession& session, int) -> absl::StatusOr<Then> {
    return session.Done([&session] {
      session.SendPart();
      session.SendPart();
      return absl::OkStatus();
    });
  });
  EXPECT_TRUE(Read(stream).ok());
  EXPECT_THAT(told_, ElementsAre("part", "part", "progress", "result"));
}

TEST_F(OperationSessionTest, AnErrorOfAStepOrOfWorkAsideEndsTheCall) {
  auto step = Start([](ScriptedSession&, int) -> absl::StatusOr<Then> {
    return absl::NotFoundError("no such step");
  });
  EXPECT_EQ(Read(step), absl::NotFoundError("no such step"));
  auto aside = Start([](ScriptedSession& session, int) -> absl::StatusOr<Then> {
    return session.Aside([] { return absl::DataLossError("damaged"); });
  });
  EXPECT_EQ(Read(aside), absl::DataLossError("damaged"));
}

TEST_F(OperationSessionTest, ACancelledCallTakesNoStepAndStopsItsWorkAside) {
  std::atomic<bool> stopped = false;
  {
    auto stream = Start([&](ScriptedSession& session, int step) -> absl::StatusOr<Then> {
      EXPECT_EQ(step, 0);
      return session.Aside([&] {
        while (session.CheckCancelled().ok()) absl::SleepFor(absl::Milliseconds(1));
        stopped = true;
        return absl::UnknownError("in its own words");
      });
    });
    int calls = 0;
    EXPECT_TRUE(absl::IsCancelled(Read(stream, [&] {
      if (++calls == 3) stream.Cancel();
    })));
  }
  EXPECT_TRUE(stopped) << "the end of the stream waits for it";
}

TEST_F(OperationSessionTest, AStreamThatIsDroppedStopsItsWorkAside) {
  std::atomic<bool> stopped = false;
  {
    auto stream = Start([&](ScriptedSession& session, int) -> absl::StatusOr<Then> {
      return session.Aside([&] {
        while (session.CheckCancelled().ok()) absl::SleepFor(absl::Milliseconds(1));
        stopped = true;
        return absl::OkStatus();
      });
    });
    ASSERT_TRUE(stream.Next().ok());
  }
  EXPECT_TRUE(stopped);
}

TEST_F(OperationSessionTest, AShutdownEndsACallExceptOneThatHasCommitted) {
  std::atomic<bool> draining = false;
  context_.options.draining = [&] { return draining.load(); };
  auto working = Start([&](ScriptedSession& session, int step) -> absl::StatusOr<Then> {
    draining = step == 5;
    return session.Again();
  });
  EXPECT_TRUE(absl::IsUnavailable(Read(working)));

  draining = false;
  auto committing = Start([&](ScriptedSession& session, int) -> absl::StatusOr<Then> {
    return session.Done([&] {
      draining = true;
      absl::SleepFor(absl::Milliseconds(50));
      return absl::OkStatus();
    });
  });
  EXPECT_TRUE(Read(committing).ok());
  EXPECT_EQ(told_.back(), "result");
}

}  // namespace
}  // namespace modelstore::server
