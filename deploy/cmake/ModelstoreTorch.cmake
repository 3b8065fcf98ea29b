# LibTorch as one imported target, modelstore_torch. Installed beside the package,
# which finds LibTorch again where it is used.
#
# TorchConfig.cmake of a CUDA build insists on a CUDA toolkit; the libraries and
# headers alone are enough for everything here.
if(TARGET modelstore_torch)
  return()
endif()
find_path(MODELSTORE_TORCH_INCLUDE torch/csrc/api/include/torch/torch.h REQUIRED)
find_library(MODELSTORE_TORCH_LIBRARY torch REQUIRED)
find_library(MODELSTORE_TORCH_CPU_LIBRARY torch_cpu REQUIRED)
find_library(MODELSTORE_C10_LIBRARY c10 REQUIRED)

add_library(modelstore_torch INTERFACE IMPORTED GLOBAL)
target_include_directories(modelstore_torch INTERFACE
    ${MODELSTORE_TORCH_INCLUDE} ${MODELSTORE_TORCH_INCLUDE}/torch/csrc/api/include)
# libtorch only registers the backends; nothing refers to it, so the linker would
# drop it.
target_link_libraries(modelstore_torch INTERFACE
    -Wl,--no-as-needed ${MODELSTORE_TORCH_LIBRARY} -Wl,--as-needed
    ${MODELSTORE_TORCH_CPU_LIBRARY} ${MODELSTORE_C10_LIBRARY})
