// Resource names, keys, devices and the details of statuses: a name that is accepted has
// one meaning and one spelling, and nothing in it leads out of a folder.
#include "proto/contract/names.h"

#include <cctype>

#include "google/rpc/status.pb.h"
#include "proto/contract/errors.h"
#include "proto/contract/status_codec.h"
#include "proto/contract/torch_names.h"
#include "proto/contract/utf8.h"
#include "tests/fuzz/targets.h"

namespace modelstore::fuzz {
namespace {

std::vector<std::string> Names() {
  return {"",
          "models/iris",
          "models/resnet18.v2_final-1",
          "models/iris/checkpoints/1",
          "models/iris/checkpoints/9223372036854775807",
          "models/iris/checkpoints/latest",
          "models/iris/checkpoints/production-2",
          "models/iris/aliases/production-2",
          "models/iris/uploads/u-1_Z9",
          "models/iris/checkpoints/3/leases/trainer@host:4711",
          "models/../../etc/passwd",
          "models/" + std::string(128, 'm') + "/checkpoints/1"};
}

// A part of a name that a server may look up.
void RequireHarmless(const std::string& id) {
  FUZZ_REQUIRE(!id.empty() && id.size() <= 128);
  FUZZ_REQUIRE(id[0] != '.');
  for (const unsigned char c : id) {
    FUZZ_REQUIRE(std::isalnum(c) || c == '.' || c == '_' || c == '-');
  }
}

bool RunName(absl::string_view input) {
  bool accepted = false;
  if (const auto model = ParseModelName("field", input); model.ok()) {
    RequireHarmless(*model);
    FUZZ_REQUIRE(ModelName(*model) == input);
    accepted = true;
  } else {
    RequireRefusal(model.status(), "field: ");
  }
  if (const auto name = ParseCheckpointName("field", input); name.ok()) {
    RequireHarmless(name->model_id);
    FUZZ_REQUIRE(name->version.has_value() != !name->alias.empty());
    FUZZ_REQUIRE(name->version.value_or(1) > 0);
    FUZZ_REQUIRE((name->version.has_value()
                      ? CheckpointNameOf(name->model_id, *name->version)
                      : ModelName(name->model_id) + "/checkpoints/" + name->alias) ==
                 input);
    accepted = true;
  } else {
    RequireRefusal(name.status(), "field: ");
  }
  if (const auto name = ParseUploadName("field", input); name.ok()) {
    RequireHarmless(name->model_id);
    RequireHarmless(name->upload_id);
    FUZZ_REQUIRE(UploadNameOf(name->model_id, name->upload_id) == input);
    accepted = true;
  } else {
    RequireRefusal(name.status(), "field: ");
  }
  if (const auto name = ParseAliasName("field", input); name.ok()) {
    RequireHarmless(name->model_id);
    RequireHarmless(name->alias);
    FUZZ_REQUIRE(AliasNameOf(name->model_id, name->alias) == input);
    accepted = true;
  } else {
    RequireRefusal(name.status(), "field: ");
  }
  if (const auto name = ParseLeaseName("field", input); name.ok()) {
    RequireHarmless(name->model_id);
    FUZZ_REQUIRE(ValidateHolder("field", name->holder).ok());
    FUZZ_REQUIRE(LeaseNameOf(name->model_id, name->version, name->holder) == input);
    accepted = true;
  } else {
    RequireRefusal(name.status(), "field: ");
  }
  return accepted;
}

std::vector<std::string> Keys() {
  return {"optimizer:state/0/exp_avg",
          "model:layer.0.weight",
          "a~0b~1c",
          "层.权重",
          "cuda:0",
          "cpu",
          "bfloat16",
          std::string(1024, 'k'),
          ""};
}

bool RunKey(absl::string_view input) {
  const absl::Status status = ValidateKey("field", input);
  if (status.ok()) {
    FUZZ_REQUIRE(IsUtf8(input));
    FUZZ_REQUIRE(input.find('\0') == absl::string_view::npos);
    const std::string key(input);
    const TensorName read = ParseTensorName(TensorNameOf("model", key));
    FUZZ_REQUIRE(read.section == "model" && read.key == key);
  } else {
    RequireRefusal(status, "field: ");
  }
  const TensorName name = ParseTensorName(input);
  FUZZ_REQUIRE(ValidateSectionId("field", name.section).ok());
  FUZZ_REQUIRE(ParseTensorName(TensorNameOf(name.section, name.key)) == name);
  const std::string escaped = EscapeKeyElement(input);
  FUZZ_REQUIRE(escaped.find('/') == std::string::npos);
  FUZZ_REQUIRE(UnescapeKeyElement(escaped).value_or("refused") == input);
  if (const auto element = UnescapeKeyElement(input); element.ok()) {
    FUZZ_REQUIRE(EscapeKeyElement(*element) == input);
  }
  const std::string text = ToUtf8(input, 100);
  FUZZ_REQUIRE(IsUtf8(text) && text.size() <= 100);
  if (const absl::Status device = ValidateDevice("field", input); !device.ok()) {
    RequireRefusal(device, "field: ");
  }
  IsDTypeText(input);
  IsDeviceText(input);
  return status.ok();
}

std::vector<std::string> StatusDetails() {
  return {std::string(ToGrpcStatus(InvalidField("a.b", "why")).error_details()),
          std::string(ToGrpcStatus(DoesNotExist("model", "models/m")).error_details()),
          ""};
}

bool RunStatusDetails(absl::string_view input) {
  const absl::Status status = FromGrpcStatus(
      grpc::Status(grpc::StatusCode::NOT_FOUND, "gone", std::string(input)));
  // Details that are damaged never hide the status.
  FUZZ_REQUIRE(status.code() == absl::StatusCode::kNotFound);
  FUZZ_REQUIRE(status.message() == "gone");
  // What came in can be sent on.
  FUZZ_REQUIRE(FromGrpcStatus(ToGrpcStatus(status)).message() == "gone");
  return RetryDelay(status).has_value() || status != absl::NotFoundError("gone");
}

}  // namespace

std::vector<Target> NameTargets() {
  return {{"key", Keys, RunKey},
          {"name", Names, RunName},
          {"status_details", StatusDetails, RunStatusDetails}};
}

}  // namespace modelstore::fuzz
