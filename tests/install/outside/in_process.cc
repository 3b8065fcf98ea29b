// Saves and loads without a server process, and without torch.
#include <chrono>
#include <iostream>
#include <vector>

#include "modelstore/testing.h"

int Fail(const absl::Status& status) {
  std::cerr << "in_process: " << status << "\n";
  return 1;
}

int main() {
  modelstore::TestServer server;
  modelstore::Client client = server.NewClient();
  const std::vector<float> stored = {1, 2, 3};
  modelstore::TensorView view;
  view.info.key = "w";
  view.info.shape = {3};
  view.info.size_bytes = 12;
  view.data = stored.data();
  modelstore::SaveContent content;
  content.tensors.push_back(view);
  content.sections.push_back({"model"});
  auto saved = client.SaveAsync("models/m", content)
                   .Durable(modelstore::After(std::chrono::seconds(30)));
  if (!saved.ok()) return Fail(saved.status());
  server.Restart();

  auto plan = client.PlanLoad(saved->name);
  if (!plan.ok()) return Fail(plan.status());
  std::vector<float> loaded(3);
  absl::Status status = plan->Bind(0, {loaded.data(), 12});
  if (status.ok()) status = plan->Run(modelstore::After(std::chrono::seconds(30)));
  if (!status.ok()) return Fail(status);
  if (loaded != stored) return Fail(absl::DataLossError("other values came back"));
  std::cout << "in_process: " << saved->name << " reads back\n";
  return 0;
}
