# OpenBLAS::OpenBLAS, if possible in its OpenMP build: it shares our threads instead of spinning beside them. Any other
# build works, slower. Sets OPENBLAS_LIBRARY and OPENBLAS_INCLUDE.
find_path(OPENBLAS_INCLUDE cblas.h PATH_SUFFIXES openblas-openmp openblas-pthread openblas
    HINTS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE} /usr/include)
find_library(OPENBLAS_LIBRARY openblas
    HINTS /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-pthread)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenBLASOpenMP REQUIRED_VARS OPENBLAS_LIBRARY OPENBLAS_INCLUDE)
if(OpenBLASOpenMP_FOUND AND NOT TARGET OpenBLAS::OpenBLAS)
    add_library(OpenBLAS::OpenBLAS UNKNOWN IMPORTED)
    set_target_properties(OpenBLAS::OpenBLAS PROPERTIES
        IMPORTED_LOCATION ${OPENBLAS_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${OPENBLAS_INCLUDE})
endif()
