// The table of methods: the RPCs that the API declares and their handlers.
#pragma once

#include <memory>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "server/core/service.h"
#include "server/core/service_context.h"
#include "storage/checkpoint_store.h"

namespace modelstore::server {

// The two services of the API.
std::vector<const google::protobuf::ServiceDescriptor*> ContractServices();

// Makes the service over `store`, which is not owned and must outlive the service and its
// sessions. The service registers itself as the store's only observer of models
// (CheckpointStore::WatchModels()) until it is destroyed.
std::unique_ptr<Service> MakeService(storage::CheckpointStore* store,
                                     const ServiceOptions& options);

}  // namespace modelstore::server
