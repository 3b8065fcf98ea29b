# What `cmake --install` leaves of the client library: its headers under
# include/modelstore-1, the static libraries it is made of, and a package, so that
#
#   find_package(modelstore REQUIRED)
#   target_link_libraries(app PRIVATE modelstore::client)        # or ::client_torch
#
# works in a project of its own.
include(CMakePackageConfigHelpers)

set(modelstore_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/modelstore)
set(modelstore_header_dir ${CMAKE_INSTALL_INCLUDEDIR}/modelstore-1)

set(modelstore_installed modelstore_client modelstore_contract modelstore_protos
  modelstore_status_codec)
# The headers that include torch.
set(modelstore_without PATTERN torch.h EXCLUDE PATTERN architecture.h EXCLUDE)
if(TARGET modelstore_client_torch)
  list(APPEND modelstore_installed modelstore_client_torch)
  set(modelstore_without)
endif()
set_target_properties(modelstore_client PROPERTIES EXPORT_NAME client)
set_target_properties(modelstore_contract PROPERTIES EXPORT_NAME contract)
set_target_properties(modelstore_protos PROPERTIES EXPORT_NAME protos)
set_target_properties(modelstore_status_codec PROPERTIES EXPORT_NAME status_codec)

install(TARGETS ${modelstore_installed} EXPORT modelstoreTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client)
install(EXPORT modelstoreTargets NAMESPACE modelstore::
  DESTINATION ${modelstore_package_dir} COMPONENT client)

install(DIRECTORY ${CMAKE_SOURCE_DIR}/client/include/modelstore
  DESTINATION ${modelstore_header_dir} COMPONENT client
  FILES_MATCHING PATTERN *.h ${modelstore_without})
# The one header of the contract that the client's own ones include.
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
