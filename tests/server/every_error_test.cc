// Every method, over the wire, with requests that nobody should send: whatever the
// error, it carries a reason of the list that fits its code.
#include <random>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/status_codec.h"
#include "tests/server/grpc_harness.h"

namespace modelstore::server {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MethodDescriptor;

// Fills messages with names of what is not there, malformed names and extreme numbers.
class HostileRequests {
 public:
  explicit HostileRequests(unsigned seed) : random_(seed) {}

  void Fill(Message* message, int depth = 0) {
    const auto* type = message->GetDescriptor();
    for (int i = 0; i < type->field_count(); ++i) {
      const FieldDescriptor* field = type->field(i);
      if (field->is_map() || random_() % 3 == 0) continue;
      FillField(message, field, depth);
    }
  }

 private:
  std::string Text() {
    static const std::vector<std::string> texts = {
        "",
        "models/none",
        "models/none/checkpoints/1",
        "models/none/checkpoints/latest",
        "models/m",
        "models/m/checkpoints/1",
        "models/m/checkpoints/99",
        "models/m/uploads/00",
        "models/m/aliases/none",
        "models/../m",
        "m",
        "name",
        "(",
        "model:w",
        std::string(5000, 'n'),
    };
    return texts[random_() % texts.size()];
  }
  int64_t Number() {
    static constexpr int64_t kNumbers[] = {0, 1, -1, 99, INT32_MAX, INT32_MIN};
    return kNumbers[random_() % std::size(kNumbers)];
  }

  void FillField(Message* message, const FieldDescriptor* field, int depth) {
    const auto* reflection = message->GetReflection();
    const bool repeated = field->is_repeated();
    switch (field->cpp_type()) {
#define SET(TYPE, Method, value)                      \
  case FieldDescriptor::CPPTYPE_##TYPE:               \
    if (repeated) {                                   \
      reflection->Add##Method(message, field, value); \
    } else {                                          \
      reflection->Set##Method(message, field, value); \
    }                                                 \
    break;
      SET(INT32, Int32, static_cast<int32_t>(Number()))
      SET(INT64, Int64, Number())
      SET(UINT32, UInt32, static_cast<uint32_t>(Number()))
      SET(UINT64, UInt64, static_cast<uint64_t>(Number()))
      SET(DOUBLE, Double, static_cast<double>(Number()))
      SET(FLOAT, Float, static_cast<float>(Number()))
      SET(BOOL, Bool, random_() % 2 == 0)
      SET(ENUM, EnumValue, static_cast<int>(random_() % 5))
      SET(STRING, String, Text())
#undef SET
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (depth > 3) break;
        Fill(repeated ? reflection->AddMessage(message, field)
                      : reflection->MutableMessage(message, field),
             depth + 1);
        break;
    }
  }

  std::mt19937 random_;
};

std::vector<const MethodDescriptor*> AllMethods() {
  std::vector<const MethodDescriptor*> methods;
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  for (const char* name :
       {"modelstore.v1.ModelStore", "modelstore.v1.CheckpointTransfer"}) {
    const auto* service = pool->FindServiceByName(name);
    for (int i = 0; i < service->method_count(); ++i)
      methods.push_back(service->method(i));
  }
  return methods;
}

TEST(EveryErrorTest, CarriesAReasonOfTheListThatFitsItsCode) {
  int errors = 0;
  auto* factory = google::protobuf::MessageFactory::generated_factory();
  for (const MethodDescriptor* method : AllMethods()) {
    // A server each: what one method made does not let the next one, such as
    // WatchModel, succeed and go on.
    GrpcHarness harness;
    const std::string path =
        absl::StrCat("/", method->service()->full_name(), "/", method->name());
    std::vector<std::string> requests = {"", "\xff\xff\xff", "\x0a\x02\xff\xfe"};
    for (unsigned seed = 0; seed < 20; ++seed) {
      std::unique_ptr<Message> request(
          factory->GetPrototype(method->input_type())->New());
      HostileRequests(seed).Fill(request.get());
      requests.push_back(request->SerializePartialAsString());
    }
    int of_method = 0;
    for (const std::string& request : requests) {
      const absl::Status status =
          FromGrpcStatus(SendRaw(harness.channel(), path, {request}));
      if (status.ok()) continue;
      ++of_method;
      const auto detail = ErrorDetailOf(status);
      ASSERT_TRUE(detail.has_value()) << path << ": " << status;
      ErrorReason reason = ERROR_REASON_UNSPECIFIED;
      ASSERT_TRUE(
          v1::ErrorReason_Parse(absl::StrCat("ERROR_REASON_", detail->reason), &reason))
          << path << ": " << detail->reason;
      EXPECT_EQ(CodeOf(reason), status.code()) << path << ": " << status;
      // A bug, and nothing that a request should cause.
      EXPECT_NE(status.code(), absl::StatusCode::kInternal) << path << ": " << status;
      EXPECT_NE(status.code(), absl::StatusCode::kUnknown) << path << ": " << status;
    }
    EXPECT_GT(of_method, 0) << path;
    errors += of_method;
  }
  EXPECT_GT(errors, 300);
}

}  // namespace
}  // namespace modelstore::server
