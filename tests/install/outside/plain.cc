// Saves and loads one tensor without torch.
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "modelstore/admin.h"
#include "modelstore/client.h"
#include "modelstore/version.h"

int Fail(const absl::Status& status) {
  std::cerr << "plain: " << status << "\n";
  return 1;
}

int main(int argc, char** argv) {
  auto client = modelstore::Client::Connect(argc > 1 ? argv[1] : "127.0.0.1:7070");
  if (!client.ok()) return Fail(client.status());

  const std::vector<float> stored = {1, 2, 3};
  modelstore::TensorView view;
  view.info.key = "w";
  view.info.shape = {3};
  view.info.size_bytes = 12;
  view.data = stored.data();
  modelstore::SaveContent content;
  content.tensors.push_back(view);
  content.sections.push_back({"model"});
  content.metadata.epoch = 1;
  auto saved = client->SaveAsync("models/plain", content)
                   .Durable(modelstore::After(std::chrono::seconds(30)));
  if (!saved.ok()) return Fail(saved.status());

  auto plan = client->PlanLoad("models/plain/checkpoints/latest");
  if (!plan.ok()) return Fail(plan.status());
  std::vector<float> loaded(3);
  absl::Status status = plan->Bind(0, {loaded.data(), 12});
  if (status.ok()) status = plan->Run(modelstore::After(std::chrono::seconds(30)));
  if (!status.ok()) return Fail(status);
  if (loaded != stored) return Fail(absl::DataLossError("other values came back"));
  const auto server = modelstore::GetServerInfo(*client);
  if (!server.ok()) return Fail(server.status());
  const std::string library = std::to_string(MODELSTORE_VERSION_MAJOR) + "." +
                              std::to_string(MODELSTORE_VERSION_MINOR) + "." +
                              std::to_string(MODELSTORE_VERSION_PATCH);
  if (server->version != library) {
    return Fail(
        absl::InternalError("library " + library + ", server " + server->version));
  }
  std::printf("plain: %s reads back\n", saved->name.c_str());
  return 0;
}
