// Saves a module and loads it into another one, by a server and in process.
#include <cstdio>
#include <iostream>

#include "modelstore/architecture.h"
#include "modelstore/modify.h"
#include "modelstore/testing.h"
#include "modelstore/torch.h"

int Fail(const absl::Status& status) {
  std::cerr << "with_torch: " << status << "\n";
  return 1;
}

absl::Status SaveAndLoad(modelstore::Client& client) {
  torch::nn::Linear source(3, 4), target(3, 4);
  auto saved =
      modelstore::SaveCheckpoint(client, "models/linear", {.module = source.get()});
  if (!saved.ok()) return saved.status();
  modelstore::LoadResult loaded =
      modelstore::LoadCheckpoint(client, saved->name, {.module = target.get()});
  if (!loaded.status.ok()) return loaded.status;
  if (!target->weight.equal(source->weight)) {
    return absl::DataLossError("other values came back");
  }
  std::printf("with_torch: %s reads back\n", saved->name.c_str());
  return absl::OkStatus();
}

// New parameters are drawn by a module of the server that is loaded when needed.
absl::Status DrawNewParameters(modelstore::Client& client) {
  torch::nn::Sequential net(torch::nn::Linear(3, 4));
  auto saved =
      modelstore::SaveCheckpoint(client, "models/net", {.module = net.ptr().get()});
  if (!saved.ok()) return saved.status();
  auto made = modelstore::ModifyCheckpoint(
      client, saved->name, modelstore::EditList().ReplaceModule("0", "Linear(3, 5)"));
  if (!made.ok()) return made.status();
  auto model = modelstore::LoadModel(client, made->checkpoint.name);
  if (!model.ok()) return model.status();
  if (model->Forward(torch::ones({1, 3})).size(1) != 5) {
    return absl::DataLossError("the new layer has another size");
  }
  std::printf("with_torch: %s has new parameters\n", made->checkpoint.name.c_str());
  return absl::OkStatus();
}

int main(int argc, char** argv) {
  auto client = modelstore::Client::Connect(argc > 1 ? argv[1] : "127.0.0.1:7070");
  if (!client.ok()) return Fail(client.status());
  if (absl::Status s = SaveAndLoad(*client); !s.ok()) return Fail(s);
  modelstore::TestServer server;
  modelstore::Client in_process = server.NewClient();
  if (absl::Status s = SaveAndLoad(in_process); !s.ok()) return Fail(s);
  if (absl::Status s = DrawNewParameters(in_process); !s.ok()) return Fail(s);
  return 0;
}
