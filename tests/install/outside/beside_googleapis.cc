// Links Google's error messages beside modelstore, and reads with them what an error of
// modelstore is about.
#include <iostream>
#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "modelstore/client.h"

int main(int argc, char** argv) {
  auto client = modelstore::Client::Connect(argc > 1 ? argv[1] : "127.0.0.1:7070");
  if (!client.ok()) {
    std::cerr << "beside_googleapis: " << client.status() << "\n";
    return 1;
  }
  const absl::Status status = client->GetModel("models/none").status();
  const auto detail = status.GetPayload("type.googleapis.com/google.rpc.ResourceInfo");
  google::rpc::ResourceInfo info;
  if (!absl::IsNotFound(status) || !detail.has_value() ||
      !info.ParseFromString(std::string(*detail)) ||
      info.resource_name() != "models/none") {
    std::cerr << "beside_googleapis: not the error that was expected: " << status << "\n";
    return 1;
  }
  std::cout << "beside_googleapis: " << info.resource_type() << " "
            << info.resource_name() << " " << info.description() << "\n";
  return 0;
}
