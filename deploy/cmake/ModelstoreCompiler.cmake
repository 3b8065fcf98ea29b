# Warnings, linker, compiler cache and sanitizers for the whole tree.
add_compile_options(-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers)
# The tree has no warnings with Debian 12's compiler; other compilers may report some.
# cmake --compile-no-warning-as-error leaves them warnings.
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION MATCHES "^12\\.")
  set(CMAKE_COMPILE_WARNING_AS_ERROR ON)
endif()

find_program(MODELSTORE_CCACHE ccache)
if(MODELSTORE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}/.. CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${MODELSTORE_CCACHE})
endif()

# GNU ld takes several times as long on objects of this size.
find_program(MODELSTORE_LLD ld.lld)
if(MODELSTORE_LLD)
  add_link_options(-fuse-ld=lld)
endif()

if(MODELSTORE_SANITIZE)
  add_compile_options(-fsanitize=${MODELSTORE_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${MODELSTORE_SANITIZE})
  if(MODELSTORE_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
endif()
