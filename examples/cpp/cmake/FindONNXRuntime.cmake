# ONNX Runtime: a released archive or an installed package (headers and library), or the library of the Python wheel with
# headers from elsewhere. Makes the target ONNXRuntime::ONNXRuntime.
#
# ONNXRUNTIME_ROOT     folder of a released archive, or site-packages/onnxruntime of the wheel
# ONNXRUNTIME_INCLUDE  folder of onnxruntime_cxx_api.h, where it is not below ONNXRUNTIME_ROOT; it may be older than the
#                      library, whose C API keeps its earlier versions, but not newer

find_path(ONNXRUNTIME_INCLUDE onnxruntime_cxx_api.h HINTS ${ONNXRUNTIME_ROOT} PATH_SUFFIXES include include/onnxruntime onnxruntime
  include/onnxruntime/core/session)
find_library(ONNXRUNTIME_LIBRARY onnxruntime HINTS ${ONNXRUNTIME_ROOT} PATH_SUFFIXES lib lib64)
if(NOT ONNXRUNTIME_LIBRARY AND ONNXRUNTIME_ROOT)
  file(GLOB wheel_library ${ONNXRUNTIME_ROOT}/capi/libonnxruntime.so.1.*)
  if(wheel_library)
    # The wheel has the library under its full version only, and programs look for the name that it gives itself.
    file(CREATE_LINK ${wheel_library} ${CMAKE_BINARY_DIR}/libonnxruntime.so.1 SYMBOLIC)
    set(ONNXRUNTIME_LIBRARY ${CMAKE_BINARY_DIR}/libonnxruntime.so.1 CACHE FILEPATH "ONNX Runtime's library" FORCE)
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(ONNXRuntime REQUIRED_VARS ONNXRUNTIME_LIBRARY ONNXRUNTIME_INCLUDE)

if(ONNXRuntime_FOUND AND NOT TARGET ONNXRuntime::ONNXRuntime)
  add_library(ONNXRuntime::ONNXRuntime SHARED IMPORTED)
  set_target_properties(ONNXRuntime::ONNXRuntime PROPERTIES IMPORTED_LOCATION ${ONNXRUNTIME_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${ONNXRUNTIME_INCLUDE})
endif()
