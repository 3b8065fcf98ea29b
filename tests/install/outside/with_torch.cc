// Saves a module and loads it into another one.
#include <cstdio>
#include <iostream>

#include "modelstore/torch.h"

int Fail(const absl::Status& status) {
  std::cerr << "with_torch: " << status << "\n";
  return 1;
}

int main(int argc, char** argv) {
  auto client = modelstore::Client::Connect(argc > 1 ? argv[1] : "127.0.0.1:7070");
  if (!client.ok()) return Fail(client.status());
  torch::nn::Linear source(3, 4), target(3, 4);
  auto saved =
      modelstore::SaveCheckpoint(*client, "models/linear", {.module = source.get()});
  if (!saved.ok()) return Fail(saved.status());
  modelstore::LoadResult loaded =
      modelstore::LoadCheckpoint(*client, saved->name, {.module = target.get()});
  if (!loaded.status.ok()) return Fail(loaded.status);
  if (!target->weight.equal(source->weight)) {
    return Fail(absl::DataLossError("other values came back"));
  }
  std::printf("with_torch: %s reads back\n", saved->name.c_str());
  return 0;
}
