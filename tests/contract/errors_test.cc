#include "proto/contract/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "proto/contract/status_codec.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

// The one detail of type Detail that a status bears.
template <typename Detail>
Detail DetailOf(const absl::Status& status) {
  Detail detail;
  auto payload = status.GetPayload(
      absl::StrCat("type.googleapis.com/", Detail::descriptor()->full_name()));
  EXPECT_TRUE(payload.has_value()) << status;
  EXPECT_TRUE(payload.has_value() && detail.ParseFromString(std::string(*payload)));
  return detail;
}

absl::Status RoundTrip(const absl::Status& status) {
  return FromGrpcStatus(ToGrpcStatus(status));
}

// Programs compare these names: none is renamed or removed once released.
TEST(Errors, TheListOfReasonsIsPartOfTheContract) {
  std::vector<std::string> names;
  const auto* reasons = v1::ErrorReason_descriptor();
  for (int i = 0; i < reasons->value_count(); ++i) {
    const int number = reasons->value(i)->number();
    const absl::string_view name = ReasonName(static_cast<ErrorReason>(number));
    EXPECT_EQ(reasons->value(i)->name(), absl::StrCat("ERROR_REASON_", name));
    names.push_back(absl::StrCat(number, " ", name));
  }
  EXPECT_THAT(
      names,
      ElementsAre("0 UNSPECIFIED", "100 CANCELLED", "200 UNKNOWN", "300 INVALID_ARGUMENT",
                  "301 INVALID_FIELD", "302 REQUEST_ID_REUSED", "400 DEADLINE_EXCEEDED",
                  "401 STREAM_IDLE", "500 NOT_FOUND", "600 ALREADY_EXISTS",
                  "700 PERMISSION_DENIED", "800 RESOURCE_EXHAUSTED", "801 DISK_FULL",
                  "802 OVER_LIMIT", "900 FAILED_PRECONDITION", "901 HELD",
                  "902 NOT_EMPTY", "903 INCOMPLETE", "904 UPLOAD_COMMITTED",
                  "905 UNKNOWN_RESUME_TOKEN", "906 DIGEST_ALGORITHMS_DIFFER",
                  "907 METRIC_MISSING", "1000 ABORTED", "1001 STALE_ETAG",
                  "1002 LOST_RACE", "1100 OUT_OF_RANGE", "1101 ANSWER_TOO_LARGE",
                  "1200 UNIMPLEMENTED", "1300 INTERNAL", "1400 UNAVAILABLE",
                  "1401 OVERLOADED", "1402 SHUTTING_DOWN", "1403 OUTCOME_UNKNOWN",
                  "1500 DATA_LOSS", "1501 DATA_DAMAGED", "1600 UNAUTHENTICATED"));
}

TEST(Errors, AReasonHasOneCodeAndItsMetadata) {
  const absl::Status status = RoundTrip(
      MakeError(ERROR_REASON_DISK_FULL, "the disk is full", {{"bytes_to_free", "7"}}));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const auto detail = ErrorDetailOf(status);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason, "DISK_FULL");
  EXPECT_THAT(detail->metadata, ElementsAre(Pair("bytes_to_free", "7")));
}

TEST(Errors, AnErrorInfoOfAnotherDomainIsNoReason) {
  google::rpc::ErrorInfo info;
  info.set_reason("OVERLOADED");
  info.set_domain("proxy.example.com");
  absl::Status status = absl::UnavailableError("away");
  status.SetPayload("type.googleapis.com/google.rpc.ErrorInfo",
                    absl::Cord(info.SerializeAsString()));
  EXPECT_FALSE(ErrorDetailOf(status).has_value());
  EXPECT_FALSE(IsOverloaded(status));
}

TEST(Errors, AnInvalidFieldIsNamedInTextAndDetail) {
  const absl::Status status =
      InvalidField("manifest.tensors[3].shape", "has a size of -1");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "manifest.tensors[3].shape: has a size of -1");
  const auto detail = DetailOf<google::rpc::BadRequest>(RoundTrip(status));
  ASSERT_EQ(detail.field_violations_size(), 1);
  EXPECT_EQ(detail.field_violations(0).field(), "manifest.tensors[3].shape");
  EXPECT_EQ(detail.field_violations(0).description(), "has a size of -1");
}

TEST(Errors, WhatDoesNotExistIsNamedInTextAndDetail) {
  const absl::Status status = DoesNotExist("checkpoint", "models/m/checkpoints/7");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "checkpoint models/m/checkpoints/7 does not exist");
  const auto detail = DetailOf<google::rpc::ResourceInfo>(RoundTrip(status));
  EXPECT_EQ(detail.resource_type(), "checkpoint");
  EXPECT_EQ(detail.resource_name(), "models/m/checkpoints/7");
}

TEST(Errors, WhatExistsAlreadyIsNamedInTextAndDetail) {
  const absl::Status status = AlreadyExists("model", "models/m");
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(status.message(), "model models/m already exists");
  EXPECT_EQ(DetailOf<google::rpc::ResourceInfo>(status).resource_name(), "models/m");
}

TEST(Errors, UnavailableReportsWhenToTryAgain) {
  const absl::Status status = RoundTrip(Unavailable("storage reopens", 2500));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  const auto detail = DetailOf<google::rpc::RetryInfo>(status);
  EXPECT_EQ(detail.retry_delay().seconds(), 2);
  EXPECT_EQ(detail.retry_delay().nanos(), 500'000'000);
}

TEST(Errors, AnOverloadIsKnownFromOtherUnavailableStatesAndReportsWhenToTryAgain) {
  const absl::Status overload = RoundTrip(Overloaded("1024 streams are open", 1500));
  EXPECT_EQ(overload.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(IsOverloaded(overload));
  EXPECT_EQ(RetryDelay(overload), absl::Milliseconds(1500));
  const absl::Status reopens = RoundTrip(Unavailable("storage reopens", 2500));
  EXPECT_FALSE(IsOverloaded(reopens));
  EXPECT_EQ(RetryDelay(reopens), absl::Milliseconds(2500));
  EXPECT_FALSE(IsOverloaded(absl::ResourceExhaustedError("the disk is full")));
  EXPECT_EQ(RetryDelay(absl::UnavailableError("gone")), std::nullopt);
}

TEST(Errors, AnAdditionKeepsCodeAndDetails) {
  const absl::Status status = AppendTo(Unavailable("away", 100), "nothing was saved");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "away; nothing was saved");
  EXPECT_EQ(RetryDelay(status), absl::Milliseconds(100));
  EXPECT_TRUE(AppendTo(absl::OkStatus(), "x").ok());
}

TEST(Errors, DataLossNamesTheTensor) {
  const absl::Status status = RoundTrip(
      TensorDataLoss("models/m/checkpoints/7", "model:fc.weight", "chunk 2 is damaged"));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(),
            "tensor model:fc.weight of models/m/checkpoints/7: chunk 2 is damaged");
  const auto detail = DetailOf<google::rpc::ResourceInfo>(status);
  EXPECT_EQ(detail.resource_type(), "tensor");
  EXPECT_EQ(detail.resource_name(), "models/m/checkpoints/7/model:fc.weight");
}

TEST(Errors, AnnotatingKeepsCodeAndDetails) {
  const absl::Status status =
      Annotate(DoesNotExist("model", "models/m"), "while loading");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "while loading: model models/m does not exist");
  EXPECT_EQ(DetailOf<google::rpc::ResourceInfo>(status).resource_name(), "models/m");
  EXPECT_TRUE(Annotate(absl::OkStatus(), "while loading").ok());
}

TEST(Errors, BytesThatAreNoUtf8StayReadableForOtherLanguages) {
  const absl::Status status = InvalidField("key", "bad \xff\xfe name");
  const grpc::Status sent = ToGrpcStatus(status);
  google::rpc::Status detailed;
  ASSERT_TRUE(detailed.ParseFromString(sent.error_details()));
  EXPECT_TRUE(IsUtf8(detailed.message()));
  EXPECT_TRUE(IsUtf8(sent.error_message()));
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(FromGrpcStatus(sent))
                .field_violations(0)
                .description(),
            "bad ?? name");
}

TEST(StatusCodec, AStatusWithoutAReasonGetsTheNameOfItsCode) {
  for (int code = 1; code <= 16; ++code) {
    const auto detail =
        ErrorDetailOf(RoundTrip(absl::Status(static_cast<absl::StatusCode>(code), "")));
    ASSERT_TRUE(detail.has_value()) << code;
    EXPECT_EQ(detail->reason,
              absl::StatusCodeToString(static_cast<absl::StatusCode>(code)));
    EXPECT_TRUE(detail->metadata.empty());
  }
}

TEST(StatusCodec, AReasonFitsNextToAnyDetails) {
  const std::string name(100'000, 'n');
  absl::Status status = DoesNotExist(name, name);
  status.SetPayload("type.googleapis.com/acme.Large", absl::Cord(std::string(3000, 'x')));
  const auto detail = ErrorDetailOf(RoundTrip(status));
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason, "NOT_FOUND");
  EXPECT_EQ(detail->metadata.at("resource_name").size(), 640u);
}

TEST(StatusCodec, EveryCodeSurvives) {
  EXPECT_TRUE(RoundTrip(absl::OkStatus()).ok());
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    const absl::Status arrived = RoundTrip(status);
    EXPECT_EQ(arrived.code(), status.code());
    EXPECT_EQ(arrived.message(), "why");
    EXPECT_EQ(RoundTrip(arrived), arrived) << code;
  }
}

TEST(StatusCodec, TheDetailsMessageCarriesTheCode) {
  google::rpc::Status detailed;
  ASSERT_TRUE(detailed.ParseFromString(
      ToGrpcStatus(DoesNotExist("model", "models/m")).error_details()));
  EXPECT_EQ(detailed.code(), 5);
  EXPECT_EQ(detailed.message(), "model models/m does not exist");
  ASSERT_EQ(detailed.details_size(), 2);
  EXPECT_EQ(detailed.details(0).type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
  EXPECT_EQ(detailed.details(1).type_url(),
            "type.googleapis.com/google.rpc.ResourceInfo");
}

TEST(StatusCodec, UnknownDetailsArriveAndPrivatePayloadsStay) {
  absl::Status status = absl::AbortedError("etag differs");
  status.SetPayload("type.googleapis.com/acme.Unknown", absl::Cord("\x01\x02"));
  status.SetPayload("modelstore.private", absl::Cord("secret"));
  const absl::Status arrived = RoundTrip(status);
  EXPECT_EQ(arrived.GetPayload("type.googleapis.com/acme.Unknown"),
            absl::Cord("\x01\x02"));
  EXPECT_FALSE(arrived.GetPayload("modelstore.private").has_value());
}

TEST(StatusCodec, LongMessagesAndDetailsFitInATrailer) {
  const std::string name(100'000, 'n');
  absl::Status status = absl::NotFoundError(std::string(100'000, 'm'));
  status.SetPayload("type.googleapis.com/acme.Large", absl::Cord(name));
  status.SetPayload("type.googleapis.com/acme.Small", absl::Cord("s"));
  const grpc::Status sent = ToGrpcStatus(status);
  EXPECT_EQ(sent.error_message().size(), 4096u);
  EXPECT_LT(sent.error_details().size(), 4096u);
  EXPECT_TRUE(
      FromGrpcStatus(sent).GetPayload("type.googleapis.com/acme.Small").has_value());
  const grpc::Status field = ToGrpcStatus(InvalidField(name, name));
  EXPECT_EQ(
      DetailOf<google::rpc::BadRequest>(FromGrpcStatus(field)).field_violations_size(),
      1);
}

TEST(StatusCodec, ACutMessageEndsBetweenCharacters) {
  std::string message(4095, 'x');
  message += "é";
  const grpc::Status sent = ToGrpcStatus(absl::InternalError(message));
  EXPECT_EQ(sent.error_message(), std::string(4095, 'x'));
}

TEST(StatusCodec, DetailsThatDoNotParseAreDropped) {
  const absl::Status status =
      FromGrpcStatus(grpc::Status(grpc::StatusCode::NOT_FOUND, "gone", "\xff\xff\xff"));
  EXPECT_EQ(status, absl::NotFoundError("gone"));
}

TEST(Utf8, AcceptsWhatProtobufAccepts) {
  for (absl::string_view text :
       {"", "plain", "é", "中文", "\xF0\x9F\x98\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsUtf8(text)) << text;
    EXPECT_EQ(ToUtf8(text, 100), text);
  }
}

TEST(Utf8, RefusesOverlongSurrogatesAndCutSequences) {
  for (absl::string_view text :
       {"\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3", "\xe4\xb8",
        "\xf0\x9f\x98", "a\xffz"}) {
    EXPECT_FALSE(IsUtf8(text));
    EXPECT_TRUE(IsUtf8(ToUtf8(text, 100)));
  }
  EXPECT_EQ(ToUtf8("a\xffz", 100), "a?z");
}

}  // namespace
}  // namespace modelstore
