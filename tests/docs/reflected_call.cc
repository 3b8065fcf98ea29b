#include "tests/docs/reflected_call.h"

#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <cctype>
#include <chrono>
#include <memory>
#include <regex>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/descriptor.pb.h"
#include "tests/docs/reflection.grpc.pb.h"

namespace modelstore::docs {
namespace {

namespace pb = google::protobuf;
namespace reflection = grpc::reflection::v1alpha;

// grpcurl takes a FieldMask as an object of paths, protobuf's JSON as one string of
// names in camel case.
std::string MasksAsStrings(const std::string& json) {
  static const std::regex kMask(R"re(\{"paths": \[([^\]]*)\]\})re");
  std::string out, rest = json;
  for (std::smatch found; std::regex_search(rest, found, kMask);) {
    absl::StrAppend(&out, found.prefix().str(), "\"");
    bool upper = false;
    for (const char c : found[1].str()) {
      if (c == '"' || c == ' ') continue;
      if (c != '_') out += upper ? static_cast<char>(std::toupper(c)) : c;
      upper = c == '_';
    }
    out += '"';
    rest = found.suffix();
  }
  return out + rest;
}

absl::Status FromGrpc(const grpc::Status& s) {
  return absl::Status(static_cast<absl::StatusCode>(s.error_code()), s.error_message());
}

std::chrono::system_clock::time_point Deadline() {
  return std::chrono::system_clock::now() + std::chrono::seconds(30);
}

// Asks reflection one question.
absl::StatusOr<reflection::ServerReflectionResponse> Ask(
    const std::shared_ptr<grpc::Channel>& channel,
    const reflection::ServerReflectionRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  auto stream =
      reflection::ServerReflection::NewStub(channel)->ServerReflectionInfo(&context);
  reflection::ServerReflectionResponse response;
  const bool answered = stream->Write(request) && stream->Read(&response);
  stream->WritesDone();
  grpc::Status status = stream->Finish();
  if (!status.ok()) return FromGrpc(status);
  if (!answered) return absl::UnavailableError("reflection gives no answer");
  if (response.has_error_response()) {
    return absl::NotFoundError(response.error_response().error_message());
  }
  return response;
}

// Brings the file that defines `symbol`, and all it imports, into the pool.
absl::Status Import(const std::shared_ptr<grpc::Channel>& channel,
                    const reflection::ServerReflectionRequest& request,
                    pb::DescriptorPool* pool) {
  auto response = Ask(channel, request);
  if (!response.ok()) return response.status();
  std::vector<pb::FileDescriptorProto> files;
  for (const std::string& bytes :
       response->file_descriptor_response().file_descriptor_proto()) {
    if (!files.emplace_back().ParseFromString(bytes)) {
      return absl::InternalError("reflection sent a descriptor that does not parse");
    }
  }
  for (const pb::FileDescriptorProto& file : files) {
    if (pool->FindFileByName(file.name()) != nullptr) continue;
    for (const std::string& dependency : file.dependency()) {
      if (pool->FindFileByName(dependency) != nullptr) continue;
      reflection::ServerReflectionRequest by_name;
      by_name.set_file_by_filename(dependency);
      if (absl::Status s = Import(channel, by_name, pool); !s.ok()) return s;
    }
    if (pool->BuildFile(file) == nullptr) {
      return absl::InternalError(absl::StrCat("cannot use descriptor ", file.name()));
    }
  }
  return absl::OkStatus();
}

// Sends one message and reads every response; unary methods are streams of one.
absl::StatusOr<std::vector<std::string>> Exchange(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
    const std::string& request) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  grpc::CompletionQueue queue;
  void* tag = nullptr;
  bool ok = false;
  const auto next = [&] { return queue.Next(&tag, &ok) && ok; };
  auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  next();
  grpc::Slice slice(request);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  next();
  std::vector<std::string> responses;
  for (;;) {
    grpc::ByteBuffer buffer;
    call->Read(&buffer, nullptr);
    if (!next()) break;
    grpc::Slice whole;
    if (!buffer.DumpToSingleSlice(&whole).ok()) break;
    responses.emplace_back(reinterpret_cast<const char*>(whole.begin()), whole.size());
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
  if (!status.ok()) return FromGrpc(status);
  return responses;
}

}  // namespace

absl::StatusOr<GrpcurlCommand> ParseGrpcurl(const std::string& line) {
  GrpcurlCommand command;
  std::vector<std::string> words;
  std::string rest = line;
  if (const size_t open = line.find('\''); open != std::string::npos) {
    const size_t close = line.find('\'', open + 1);
    if (close == std::string::npos) return absl::InvalidArgumentError("quote not closed");
    command.json = line.substr(open + 1, close - open - 1);
    rest = line.substr(0, open) + line.substr(close + 1);
  }
  for (absl::string_view word : absl::StrSplit(rest, ' ', absl::SkipEmpty())) {
    if (word != "-plaintext" && word != "-d") words.emplace_back(word);
  }
  if (words.size() != 3 || words[0] != "grpcurl") {
    return absl::InvalidArgumentError(absl::StrCat("not a grpcurl command: ", line));
  }
  command.address = words[1];
  command.method = words[2];
  return command;
}

absl::StatusOr<std::string> CallByReflection(const GrpcurlCommand& command,
                                             const std::string& address) {
  auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  const size_t slash = command.method.find('/');
  if (slash == std::string::npos) return absl::InvalidArgumentError("a method has a /");
  const std::string service_name = command.method.substr(0, slash);
  pb::DescriptorPool pool;
  reflection::ServerReflectionRequest request;
  request.set_file_containing_symbol(service_name);
  if (absl::Status s = Import(channel, request, &pool); !s.ok()) return s;
  const pb::ServiceDescriptor* service = pool.FindServiceByName(service_name);
  const pb::MethodDescriptor* method =
      service == nullptr ? nullptr
                         : service->FindMethodByName(command.method.substr(slash + 1));
  if (method == nullptr) {
    return absl::NotFoundError(absl::StrCat("reflection knows no ", command.method));
  }

  pb::DynamicMessageFactory factory(&pool);
  std::unique_ptr<pb::Message> input(factory.GetPrototype(method->input_type())->New());
  if (auto s = pb::util::JsonStringToMessage(MasksAsStrings(command.json), input.get());
      !s.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(command.json, ": ", s.ToString()));
  }
  auto responses =
      Exchange(channel, absl::StrCat("/", command.method), input->SerializeAsString());
  if (!responses.ok()) return responses.status();
  std::string text;
  for (const std::string& bytes : *responses) {
    std::unique_ptr<pb::Message> output(
        factory.GetPrototype(method->output_type())->New());
    if (!output->ParseFromString(bytes))
      return absl::InternalError("response does not parse");
    std::string json;
    pb::util::JsonPrintOptions options;
    options.add_whitespace = true;
    if (auto s = pb::util::MessageToJsonString(*output, &json, options); !s.ok()) {
      return absl::InternalError(s.ToString());
    }
    text += json;
  }
  return text;
}

absl::StatusOr<std::string> ListServices(const std::string& address) {
  auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  reflection::ServerReflectionRequest request;
  request.set_list_services("*");
  auto response = Ask(channel, request);
  if (!response.ok()) return response.status();
  std::string names;
  for (const auto& service : response->list_services_response().service()) {
    absl::StrAppend(&names, service.name(), "\n");
  }
  return names;
}

}  // namespace modelstore::docs
