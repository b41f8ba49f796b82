# The CPU back end of a source build is compiled for this machine. On x86, ggml refuses GGML_NATIVE together with
# GGML_BACKEND_DL (its loader must know the feature list), so the compiler is asked what "native" means here and the
# features are named one by one.

option(PYGGML_NATIVE "Compile the CPU back end for this machine" ON)

set(pyggml_x86_features
  SSE42=__SSE4_2__ AVX=__AVX__ AVX2=__AVX2__ BMI2=__BMI2__ FMA=__FMA__ F16C=__F16C__ AVX_VNNI=__AVXVNNI__
  AVX512=__AVX512F__ AVX512_VBMI=__AVX512VBMI__ AVX512_VNNI=__AVX512VNNI__ AVX512_BF16=__AVX512BF16__
  AMX_TILE=__AMX_TILE__ AMX_INT8=__AMX_INT8__ AMX_BF16=__AMX_BF16__)

if(PYGGML_NATIVE AND NOT GGML_CPU_ALL_VARIANTS AND NOT GGML_NATIVE AND NOT CMAKE_CROSSCOMPILING
   AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64|i686)$")
  set(GGML_NATIVE OFF CACHE BOOL "")
  execute_process(
    COMMAND "${CMAKE_C_COMPILER}" -march=native -dM -E -x c /dev/null
    RESULT_VARIABLE status OUTPUT_VARIABLE macros ERROR_QUIET)
  if(status EQUAL 0)
    foreach(pair ${pyggml_x86_features})
      string(REGEX MATCH "^([^=]+)=(.+)$" _ "${pair}")
      string(FIND "${macros}" "#define ${CMAKE_MATCH_2} " at)
      if(at GREATER -1)
        set(GGML_${CMAKE_MATCH_1} ON CACHE BOOL "")
        list(APPEND pyggml_native ${CMAKE_MATCH_1})
      else()
        set(GGML_${CMAKE_MATCH_1} OFF CACHE BOOL "")
      endif()
    endforeach()
    add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-mtune=native>)
    message(STATUS "ggml: native features ${pyggml_native}")
  else()
    message(STATUS "ggml: ${CMAKE_C_COMPILER} knows no -march=native; ggml's default features are used")
  endif()
elseif(NOT PYGGML_NATIVE OR GGML_CPU_ALL_VARIANTS)
  set(GGML_NATIVE OFF CACHE BOOL "")
endif()
