# Makes ggml's targets. Included by the top CMakeLists.txt; see README.md here.

set(PYGGML_GGML_SOURCE "" CACHE PATH "A local ggml tree to build instead of the pinned one; patches/ are not applied to it")

if(PYGGML_GGML_SOURCE)
  set(ggml_source "${PYGGML_GGML_SOURCE}")
  if(NOT EXISTS "${ggml_source}/src/ggml.c" OR NOT EXISTS "${ggml_source}/CMakeLists.txt")
    pyggml_stop("PYGGML_GGML_SOURCE=${ggml_source} is no ggml tree (CMakeLists.txt or src/ggml.c is missing): \
name the folder that holds both, as an absolute path")
  endif()
  message(STATUS "ggml: local tree ${ggml_source}, unpatched")
else()
  execute_process(
    COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/fetch.py"
    RESULT_VARIABLE fetch_status OUTPUT_VARIABLE fetch_done ERROR_VARIABLE fetch_error
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
  if(NOT fetch_status EQUAL 0)
    pyggml_stop("${fetch_error}")
  endif()
  message(STATUS "${fetch_done}")
  set(ggml_source "${CMAKE_CURRENT_LIST_DIR}/src")
  file(GLOB patches CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/patches/*.patch")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/requirements.txt" ${patches})
endif()

# Our choice where ggml's default is another; -Ccmake.define.NAME=... wins. A plain variable (not a cache entry) does
# not outlive this run: the next one in the same build folder follows the file again.
macro(pyggml_default name value)
  if(NOT DEFINED CACHE{${name}})
    set(${name} ${value})
  endif()
endmacro()

# ggml's own defaults hold for everything not named here: on macOS that is Metal with its library embedded, BLAS by
# Accelerate and Accelerate in the CPU back end.
pyggml_default(BUILD_SHARED_LIBS ON)
pyggml_default(GGML_BACKEND_DL ON)     # one loader for every back end; a GPU is one more file
pyggml_default(GGML_LLAMAFILE ON)      # faster prompt processing on the CPU, as llama.cpp builds it
pyggml_default(GGML_OPENMP OFF)        # ggml's own thread pool: no libgomp to ship or to share with torch
pyggml_default(GGML_RPC ON)            # small; does nothing until asked
pyggml_default(GGML_BUILD_TESTS OFF)
pyggml_default(GGML_BUILD_EXAMPLES OFF)
include("${CMAKE_CURRENT_LIST_DIR}/native.cmake")

if(NOT GGML_BACKEND_DL)
  pyggml_stop("GGML_BACKEND_DL=OFF is not supported: pyggml opens every back end at run time; drop that setting")
endif()

# What is missing for a chosen back end, said before ggml stumbles over it.
if(GGML_CUDA)
  find_package(CUDAToolkit QUIET)
  if(NOT TARGET CUDA::cublas)
    pyggml_stop("GGML_CUDA=ON needs the CUDA toolkit with nvcc and cuBLAS (nvcc: ${CUDAToolkit_NVCC_EXECUTABLE}): \
install it whole, or name its folder with CUDAToolkit_ROOT")
  endif()
  if(NOT TARGET CUDA::cuda_driver AND NOT GGML_CUDA_NO_VMM)
    pyggml_stop("GGML_CUDA=ON found no libcuda.so, of the driver or the toolkit's stubs: install one of them, or build \
without it with -Ccmake.define.GGML_CUDA_NO_VMM=ON")
  endif()
endif()
if(GGML_BLAS AND NOT APPLE)
  set(BLA_VENDOR ${GGML_BLAS_VENDOR}) # ggml's own name for it; empty is any
  find_package(BLAS QUIET)
  find_package(PkgConfig QUIET)
  if(NOT BLAS_FOUND OR NOT PkgConfig_FOUND)
    pyggml_stop("GGML_BLAS=ON needs a BLAS library (vendor asked for: '${GGML_BLAS_VENDOR}') and pkg-config: install them \
(Debian: libopenblas-dev pkg-config) and name the vendor with -Ccmake.define.GGML_BLAS_VENDOR=OpenBLAS")
  endif()
endif()
if(GGML_VULKAN)
  list(APPEND CMAKE_PREFIX_PATH "$ENV{VULKAN_SDK}")
  find_package(Vulkan QUIET COMPONENTS glslc)
  find_package(SPIRV-Headers CONFIG QUIET)
  if(NOT Vulkan_FOUND OR NOT SPIRV-Headers_FOUND)
    pyggml_stop("GGML_VULKAN=ON needs Vulkan's headers and loader, glslc and the SPIR-V headers: install them \
(Debian: libvulkan-dev glslc spirv-headers) or set VULKAN_SDK")
  endif()
endif()

# ggml appends to this list in the cache: without a fresh start, a back end that was switched off stays in it.
unset(GGML_AVAILABLE_BACKENDS CACHE)
# ggml asks git for its own commit: it must not find ours, which would recompile ggml after each commit.
set(ENV{GIT_CEILING_DIRECTORIES} "${CMAKE_CURRENT_LIST_DIR}")
add_subdirectory("${ggml_source}" "${CMAKE_BINARY_DIR}/ggml")
