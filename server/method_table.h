// The table of methods: what the contract declares, and who handles it.
#pragma once

#include <memory>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "server/core/service.h"
#include "server/core/service_context.h"
#include "storage/checkpoint_store.h"

namespace modelstore::server {

// The two services of the contract.
std::vector<const google::protobuf::ServiceDescriptor*> ContractServices();

// `store` is not owned and outlives the service and its sessions; the service
// watches its models.
std::unique_ptr<Service> MakeService(storage::CheckpointStore* store,
                                     const ServiceOptions& options);

}  // namespace modelstore::server
