# What `cmake --install` installs of the client library: its headers under
# include/modelstore-1, the static libraries it is made of, and a package, so that
#
#   find_package(modelstore REQUIRED)
#   target_link_libraries(app PRIVATE modelstore::client)        # or ::client_torch
#   target_link_libraries(app_test PRIVATE modelstore::testing)
#
# works in another project.
include(CMakePackageConfigHelpers)

set(modelstore_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/modelstore)
set(modelstore_header_dir ${CMAKE_INSTALL_INCLUDEDIR}/modelstore-1)

set(modelstore_installed client contract protos service status_codec storage
  storage_memory testing)
# The headers that include torch.
set(modelstore_without PATTERN torch.h EXCLUDE PATTERN architecture.h EXCLUDE)
if(MODELSTORE_WITH_TORCH)
  list(APPEND modelstore_installed client_torch)
  set(modelstore_without)
  # The service in a test loads the module that draws new parameters.
  install(TARGETS modelstore_draws
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/modelstore COMPONENT client)
  target_link_options(modelstore_testing INTERFACE
    "$<INSTALL_INTERFACE:LINKER:-rpath,$<INSTALL_PREFIX>/${CMAKE_INSTALL_LIBDIR}/modelstore>")
endif()
set(modelstore_targets)
foreach(name ${modelstore_installed})
  set_target_properties(modelstore_${name} PROPERTIES EXPORT_NAME ${name})
  list(APPEND modelstore_targets modelstore_${name})
endforeach()

install(TARGETS ${modelstore_targets} EXPORT modelstoreTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client)
install(EXPORT modelstoreTargets NAMESPACE modelstore::
  DESTINATION ${modelstore_package_dir} COMPONENT client)

install(DIRECTORY ${CMAKE_SOURCE_DIR}/client/include/modelstore
  DESTINATION ${modelstore_header_dir} COMPONENT client
  FILES_MATCHING PATTERN *.h ${modelstore_without})
# The only header of the contract that the client's headers include.
install(FILES ${CMAKE_SOURCE_DIR}/proto/contract/dtype.h
  DESTINATION ${modelstore_header_dir}/proto/contract COMPONENT client)

configure_package_config_file(${CMAKE_SOURCE_DIR}/deploy/cmake/modelstoreConfig.cmake.in
  ${CMAKE_BINARY_DIR}/modelstoreConfig.cmake
  INSTALL_DESTINATION ${modelstore_package_dir} NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/modelstoreConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${CMAKE_BINARY_DIR}/modelstoreConfig.cmake
  ${CMAKE_BINARY_DIR}/modelstoreConfigVersion.cmake
  ${CMAKE_SOURCE_DIR}/deploy/cmake/ModelstoreTorch.cmake
  DESTINATION ${modelstore_package_dir} COMPONENT client)
