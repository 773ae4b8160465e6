# What `cmake --install` puts where: headers, both libraries, a package for CMake (gyre::gyre, gyre::gyre_static), a
# gyre.pc for pkg-config, and the papers. Nothing in them names the prefix, so the result can be moved. The exception is
# gyre.pc in a place of the system's, see below.
#
# The shared and the static target are exported apart: who links the static one needs liburing's package too, who links
# the shared one does not.
include(CMakePackageConfigHelpers)

set(GYRE_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/gyre)
set(GYRE_PKGCONFIG_DIR ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
set(GYRE_USES_URING OFF)
set(GYRE_PC_REQUIRES "")
if(TARGET PkgConfig::LIBURING)
  set(GYRE_USES_URING ON)
  set(GYRE_PC_REQUIRES "liburing >= ${GYRE_LIBURING_NEEDED}")
endif()

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(TARGETS gyre_shared EXPORT gyre-shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS gyre_static EXPORT gyre-static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT gyre-shared NAMESPACE gyre:: DESTINATION ${GYRE_PACKAGE_DIR})
install(EXPORT gyre-static NAMESPACE gyre:: DESTINATION ${GYRE_PACKAGE_DIR})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/gyre-config.cmake.in ${PROJECT_BINARY_DIR}/gyre-config.cmake
  INSTALL_DESTINATION ${GYRE_PACKAGE_DIR} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/gyre-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/gyre-config.cmake ${PROJECT_BINARY_DIR}/gyre-config-version.cmake
  DESTINATION ${GYRE_PACKAGE_DIR})

# gyre.pc finds the prefix from where it lies, unless the directories were given as absolute paths. A tree that was moved
# still works then, but the paths read PREFIX/lib/pkgconfig/../../include: pkg-config does not shorten them, and does not
# see that one of them is /usr/include, which it would leave out. Both cannot be had. So gyre.pc names the prefix where
# the prefix is known to be final: with DESTDIR, and under /usr and /opt.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  set(GYRE_PC_PREFIX ${CMAKE_INSTALL_PREFIX})
  set(GYRE_PC_LIBDIR ${CMAKE_INSTALL_FULL_LIBDIR})
  set(GYRE_PC_INCLUDEDIR ${CMAKE_INSTALL_FULL_INCLUDEDIR})
else()
  file(RELATIVE_PATH up /${GYRE_PKGCONFIG_DIR} /)
  string(REGEX REPLACE "/$" "" up "${up}")
  set(GYRE_PC_PREFIX "\${pcfiledir}/${up}")
  set(GYRE_PC_LIBDIR "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
  set(GYRE_PC_INCLUDEDIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
configure_file(${CMAKE_CURRENT_LIST_DIR}/gyre.pc.in ${PROJECT_BINARY_DIR}/gyre.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/gyre.pc DESTINATION ${GYRE_PKGCONFIG_DIR} COMPONENT pkgconfig)
# The prefix is known only now: `cmake --install --prefix` may say another than the build was configured with.
install(CODE "
  set(pkgconfig_dir \"${GYRE_PKGCONFIG_DIR}\")
  set(relative_prefix [[prefix=${GYRE_PC_PREFIX}]])" COMPONENT pkgconfig)
install(CODE [[
  if(NOT IS_ABSOLUTE "${pkgconfig_dir}" AND ("$ENV{DESTDIR}" OR CMAKE_INSTALL_PREFIX MATCHES "^/(usr|opt)(/|$)"))
    set(installed "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/${pkgconfig_dir}/gyre.pc")
    file(READ "${installed}" text)
    string(REPLACE "${relative_prefix}" "prefix=${CMAKE_INSTALL_PREFIX}" text "${text}")
    file(WRITE "${installed}" "${text}")
  endif()
]] COMPONENT pkgconfig)

include(${CMAKE_CURRENT_LIST_DIR}/papers.cmake)
