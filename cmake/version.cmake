# Says in a sentence which CMake is needed. cmake_minimum_required() alone would not say where a newer one comes from.
# Every version of CMake can read this file.
set(GYRE_CMAKE_NEEDED 3.25)
if(CMAKE_VERSION VERSION_LESS GYRE_CMAKE_NEEDED)
  message(FATAL_ERROR "gyre needs CMake ${GYRE_CMAKE_NEEDED} or newer; this is CMake ${CMAKE_VERSION}. "
    "Debian 12 and Ubuntu 24.04 have a newer one, and so has `pip install cmake`.")
endif()
