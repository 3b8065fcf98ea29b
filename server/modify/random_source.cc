#include "server/modify/random_source.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"
#include "server/modify/draws_module.h"

namespace modelstore::server::modify {
namespace {

#ifdef MODELSTORE_DRAWS_MODULE
constexpr const char* kModule = MODELSTORE_DRAWS_MODULE;
#else
constexpr const char* kModule = nullptr;
#endif

// Loads the module once per process and never unloads it, because sources keep using its
// code. A failure is kept too: later calls return the same error. Thread-safe.
absl::StatusOr<MakeDrawsModule> LoadModule() {
  if (kModule == nullptr) {
    return absl::UnimplementedError(
        "this server was built without torch and draws no new parameters as PyTorch "
        "does; SCHEME_ZEROS, SCHEME_ONES and SCHEME_CONSTANT need no drawing");
  }
  // Never destroyed, so that it is valid during exit.
  static const auto* const loaded =
      new absl::StatusOr<MakeDrawsModule>([]() -> absl::StatusOr<MakeDrawsModule> {
        void* module = dlopen(kModule, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        void* symbol = module == nullptr ? nullptr : dlsym(module, kMakeDrawsModule);
        if (symbol != nullptr) return reinterpret_cast<MakeDrawsModule>(symbol);
        const char* error = dlerror();
        return absl::UnimplementedError(
            absl::StrCat("torch cannot be loaded to draw new parameters: ",
                         error == nullptr ? kModule : error));
      }());
  return *loaded;
}

}  // namespace

struct RandomDraws::State {
  const uint64_t seed;
  std::unique_ptr<DrawsModule> draws;

  // Makes the generator at the first draw, so that an initialization by constants does
  // not load torch.
  absl::Status Begin() {
    if (draws != nullptr) return absl::OkStatus();
    auto make = LoadModule();
    if (!make.ok()) return make.status();
    draws.reset((*make)(seed));
    if (draws != nullptr) return absl::OkStatus();
    return absl::ResourceExhaustedError("no memory to draw numbers");
  }
};

bool WithTorch() { return kModule != nullptr; }

RandomDraws::RandomDraws(uint64_t seed) : state_(new State{seed, nullptr}) {}
RandomDraws::~RandomDraws() = default;

absl::StatusOr<SourcePtr> RandomDraws::Uniform(int64_t elements, double low, double high,
                                               KeepGoing keep_going) {
  if (auto s = state_->Begin(); !s.ok()) return s;
  return state_->draws->Uniform(elements, low, high, keep_going);
}

absl::StatusOr<SourcePtr> RandomDraws::Normal(int64_t elements, double mean, double std,
                                              KeepGoing keep_going) {
  if (auto s = state_->Begin(); !s.ok()) return s;
  return state_->draws->Normal(elements, mean, std, keep_going);
}

}  // namespace modelstore::server::modify
