# Finds liburing as PkgConfig::LIBURING, or stops and says what is needed, what was found, and what to do.
set(GYRE_LIBURING_NEEDED 2.3)

# Stop: `found` is what is wrong, `packages` what to install, by its Debian and its Fedora names.
function(gyre_liburing_missing found debian fedora)
  message(FATAL_ERROR "The io_uring backend needs liburing ${GYRE_LIBURING_NEEDED} or newer and pkg-config to find it; "
    "${found}. Install what is missing (Debian, Ubuntu: apt-get install ${debian}; Fedora: dnf install ${fedora}), "
    "or build without io_uring: cmake -DGYRE_WITH_URING=OFF, or make install CMAKE_FLAGS=-DGYRE_WITH_URING=OFF.")
endfunction()

find_package(PkgConfig QUIET)
if(NOT PKG_CONFIG_FOUND)
  gyre_liburing_missing("pkg-config was not found" "pkg-config liburing-dev" "pkgconf-pkg-config liburing-devel")
endif()
pkg_check_modules(LIBURING QUIET IMPORTED_TARGET liburing)
if(NOT LIBURING_FOUND)
  gyre_liburing_missing("pkg-config knows no liburing" "liburing-dev" "liburing-devel")
elseif(LIBURING_VERSION VERSION_LESS GYRE_LIBURING_NEEDED)
  gyre_liburing_missing("liburing ${LIBURING_VERSION} was found" "liburing-dev" "liburing-devel")
endif()
