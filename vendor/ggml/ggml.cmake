# Makes ggml's targets. Included by the top CMakeLists.txt; see README.md here.

set(PYGGML_GGML_SOURCE "" CACHE PATH "A local ggml tree to build instead of the pinned one; patches/ are not applied to it")

if(PYGGML_GGML_SOURCE)
  set(ggml_source "${PYGGML_GGML_SOURCE}")
  if(NOT EXISTS "${ggml_source}/src/ggml.c")
    message(FATAL_ERROR "PYGGML_GGML_SOURCE=${ggml_source} is no ggml tree (src/ggml.c is missing)")
  endif()
  message(STATUS "ggml: local tree ${ggml_source}, unpatched")
else()
  execute_process(
    COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/fetch.py"
    RESULT_VARIABLE fetch_status OUTPUT_VARIABLE fetch_done ERROR_VARIABLE fetch_error
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
  if(NOT fetch_status EQUAL 0)
    message(FATAL_ERROR "${fetch_error}")
  endif()
  message(STATUS "${fetch_done}")
  set(ggml_source "${CMAKE_CURRENT_LIST_DIR}/src")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/requirements.txt")
endif()

# ggml's own defaults hold for everything not named here: on macOS that is Metal with its library embedded and
# Accelerate. The user's -Ccmake.define.GGML_...=... wins over these lines.
set(BUILD_SHARED_LIBS ON CACHE BOOL "")
set(GGML_BACKEND_DL ON CACHE BOOL "")     # one loader for every back end; a GPU is one more file
set(GGML_LLAMAFILE ON CACHE BOOL "")      # faster prompt processing on the CPU, as llama.cpp builds it
set(GGML_OPENMP OFF CACHE BOOL "")        # ggml's own thread pool: no libgomp to ship or to share with torch
set(GGML_RPC ON CACHE BOOL "")            # small; does nothing until asked
include("${CMAKE_CURRENT_LIST_DIR}/native.cmake")
set(GGML_BUILD_TESTS OFF CACHE BOOL "")
set(GGML_BUILD_EXAMPLES OFF CACHE BOOL "")
add_subdirectory("${ggml_source}" "${CMAKE_BINARY_DIR}/ggml")
