# The CPU back end of a source build is compiled for this machine, unless GGML_NATIVE=OFF or GGML_CPU_ALL_VARIANTS=ON
# asks for one that travels. On x86, ggml refuses GGML_NATIVE together with GGML_BACKEND_DL (its loader must know the
# feature list), so the compiler is asked what "native" means here and the features are named one by one.

set(pyggml_x86_features
  SSE42=__SSE4_2__ AVX=__AVX__ AVX2=__AVX2__ BMI2=__BMI2__ FMA=__FMA__ F16C=__F16C__ AVX_VNNI=__AVXVNNI__
  AVX512=__AVX512VL__ AVX512_VBMI=__AVX512VBMI__ AVX512_VNNI=__AVX512VNNI__ AVX512_BF16=__AVX512BF16__
  AMX_TILE=__AMX_TILE__ AMX_INT8=__AMX_INT8__ AMX_BF16=__AMX_BF16__)

if(DEFINED CACHE{GGML_NATIVE})
  set(native ${GGML_NATIVE})
elseif(GGML_CPU_ALL_VARIANTS OR CMAKE_CROSSCOMPILING OR DEFINED ENV{SOURCE_DATE_EPOCH})
  set(native OFF)
else()
  set(native ON)
endif()

if(native AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64|i686)$")
  set(GGML_NATIVE OFF)
  execute_process(
    COMMAND "${CMAKE_C_COMPILER}" -march=native -dM -E -x c /dev/null
    RESULT_VARIABLE status OUTPUT_VARIABLE macros ERROR_QUIET)
  if(status EQUAL 0)
    foreach(pair ${pyggml_x86_features})
      string(REGEX MATCH "^([^=]+)=(.+)$" _ "${pair}")
      set(feature ${CMAKE_MATCH_1})
      string(FIND "${macros}" "#define ${CMAKE_MATCH_2} " at)
      if(at GREATER -1)
        pyggml_default(GGML_${feature} ON)
      else()
        pyggml_default(GGML_${feature} OFF)
      endif()
      if(GGML_${feature})
        list(APPEND pyggml_native ${feature})
      endif()
    endforeach()
    add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-mtune=native>)
    message(STATUS "ggml: native features ${pyggml_native}")
  else()
    message(STATUS "ggml: ${CMAKE_C_COMPILER} knows no -march=native; ggml's default features are used")
  endif()
else()
  set(GGML_NATIVE ${native})
endif()
