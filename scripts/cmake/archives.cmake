# COLONNADE_PORTABLE: what packages.cmake finds, as static archives. Debian 12 has one of every library but fmt, whose
# sources are among its headers (packaging/fmt.cpp), and SentencePiece, which is shipped beside the program. cuBLASLt,
# NCCL, Open MPI and libcurl are opened at run time (engine/device/opened_library.h): of these the headers are enough.
find_library(SZIP_ARCHIVE libsz.a REQUIRED)
find_library(AEC_ARCHIVE libaec.a REQUIRED)
find_library(YAML_ARCHIVE libyaml-cpp.a REQUIRED)
add_library(colonnade_hdf5 STATIC IMPORTED)
set_target_properties(colonnade_hdf5 PROPERTIES IMPORTED_LOCATION ${pkgcfg_lib_HDF5_hdf5}
    INTERFACE_LINK_LIBRARIES "colonnade_hdf5_without_curl;${SZIP_ARCHIVE};${AEC_ARCHIVE};PkgConfig::ZLIB;m")
set_property(TARGET PkgConfig::HDF5 PROPERTY INTERFACE_LINK_LIBRARIES colonnade_hdf5)
set(COLONNADE_YAML ${YAML_ARCHIVE})
set(COLONNADE_FMT colonnade_fmt)
set(COLONNADE_SNAPPY Snappy::snappy-static)
# Without its data, of which the program needs a tenth (packaging/icu_data.cmake).
set_property(TARGET PkgConfig::ICU PROPERTY INTERFACE_LINK_LIBRARIES ${pkgcfg_lib_ICU_icuuc} colonnade_icu_data)

# Their symbols stay inside the program, so that libsentencepiece, which has a protobuf of its own, uses its own. All
# else is open to libcolonnade_cpu (packaging/CMakeLists.txt).
set(COLONNADE_HIDDEN_ARCHIVES libhdf5.a libsz.a libaec.a libz.a libzstd.a libsnappy.a libpcre2-8.a libicuuc.a libyaml-cpp.a
    libprotobuf.a libcrypto.a libopenblas.a libcudart_static.a libpng16.a)
