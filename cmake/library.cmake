# libgyre, shared and static. A room's sources are the files in it.
find_package(Threads REQUIRED)

# What the sources, and whoever includes the internal headers, must be compiled with. Of struct offsets and calls for
# files 32-bit systems have two sets; core/op.h checks that it is this one. macOS hides IPV6_PKTINFO without its macro.
set(GYRE_SYSTEM_DEFINES _GNU_SOURCE _FILE_OFFSET_BITS=64)
if(APPLE)
  list(APPEND GYRE_SYSTEM_DEFINES __APPLE_USE_RFC_3542=1)
endif()

set(GYRE_DEFINES)
set(GYRE_ROOMS base seam buffer socket sim loop stream datagram watch work resolve listen connect reactor engine metrics)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  list(APPEND GYRE_ROOMS readiness epoll_fallback)
  list(APPEND GYRE_DEFINES GYRE_HAVE_EPOLL=1)
  if(GYRE_WITH_URING)
    include(${CMAKE_CURRENT_LIST_DIR}/liburing.cmake)
    list(APPEND GYRE_ROOMS uring)
    list(APPEND GYRE_DEFINES GYRE_HAVE_URING=1)
  endif()
else()
  list(APPEND GYRE_ROOMS readiness kqueue_fallback)
  list(APPEND GYRE_DEFINES GYRE_HAVE_KQUEUE=1)
endif()

set(GYRE_SOURCES)
foreach(room IN LISTS GYRE_ROOMS)
  file(GLOB room_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${room}/*.c)
  list(APPEND GYRE_SOURCES ${room_sources})
endforeach()

# __FILE__ and debug information name files from the top of the tree, so the libraries do not tell where they were built.
include(CheckCCompilerFlag)
check_c_compiler_flag(-ffile-prefix-map=a=b GYRE_HAVE_FILE_PREFIX_MAP)

# What every build of the library's sources needs, whether it is installed or only for the tests.
function(gyre_library_settings target)
  target_include_directories(${target}
    PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(${target} PRIVATE ${GYRE_SYSTEM_DEFINES} ${GYRE_DEFINES})
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:gyre_warnings> Threads::Threads)
  if(GYRE_HAVE_FILE_PREFIX_MAP)
    target_compile_options(${target} PRIVATE
      -ffile-prefix-map=${PROJECT_BINARY_DIR}=build -ffile-prefix-map=${PROJECT_SOURCE_DIR}/=)
  endif()
  if(TARGET PkgConfig::LIBURING)
    target_link_libraries(${target} PRIVATE PkgConfig::LIBURING)
  endif()
endfunction()

# Both libraries are made of the same objects, which are compiled once.
add_library(gyre_objects OBJECT ${GYRE_SOURCES})
gyre_library_settings(gyre_objects)
set_target_properties(gyre_objects PROPERTIES POSITION_INDEPENDENT_CODE ON)

add_library(gyre_shared SHARED $<TARGET_OBJECTS:gyre_objects>)
gyre_library_settings(gyre_shared)
set_target_properties(gyre_shared PROPERTIES OUTPUT_NAME gyre VERSION ${PROJECT_VERSION} SOVERSION ${GYRE_SOVERSION}
  EXPORT_NAME gyre)
include(CheckLinkerFlag)
set(GYRE_SYMBOL_MAP ${PROJECT_SOURCE_DIR}/src/libgyre.map)
check_linker_flag(C "-Wl,--version-script=${GYRE_SYMBOL_MAP}" GYRE_HAVE_SYMBOL_MAPS)
if(GYRE_HAVE_SYMBOL_MAPS)
  target_link_options(gyre_shared PRIVATE "-Wl,--version-script=${GYRE_SYMBOL_MAP}")
  set_property(TARGET gyre_shared APPEND PROPERTY LINK_DEPENDS ${GYRE_SYMBOL_MAP})
endif()

add_library(gyre_static STATIC $<TARGET_OBJECTS:gyre_objects>)
gyre_library_settings(gyre_static)
set_target_properties(gyre_static PROPERTIES OUTPUT_NAME gyre EXPORT_NAME gyre_static)

add_library(gyre::gyre ALIAS gyre_shared)
add_library(gyre::gyre_static ALIAS gyre_static)
