# CPack: colonnade_VERSION_amd64.deb and colonnade-VERSION-linux-x86_64.tar.gz. Without CUDA both are named colonnade-cpu.
set(COLONNADE_MAINTAINER "The Colonnade authors <maintainers@colonnade.invalid>" CACHE STRING "Contact in the .deb")
set(name colonnade)
if(NOT COLONNADE_HAS_CUDA)
    set(name colonnade-cpu)
    set(CPACK_DEBIAN_PACKAGE_CONFLICTS colonnade)
    set(CPACK_DEBIAN_PACKAGE_REPLACES colonnade)
    set(CPACK_DEBIAN_PACKAGE_PROVIDES colonnade)
endif()

# The licences of everything that is in the program: as the packages have them that it was built from.
set(licenses libopenblas-openmp-dev libhdf5-dev libaec-dev zlib1g-dev libzstd-dev libsnappy-dev libpcre2-dev libicu-dev
    libyaml-cpp-dev libprotobuf-dev libpng-dev libssl-dev libsentencepiece-dev libfmt-dev libcli11-dev nlohmann-json3-dev libgomp1)
foreach(package ${licenses})
    file(GLOB text LIST_DIRECTORIES false /usr/share/doc/${package}/copyright)
    if(text)
        install(FILES ${text} DESTINATION share/doc/colonnade/third_party RENAME ${package}.copyright COMPONENT programs)
    elseif(COLONNADE_PORTABLE)
        message(WARNING "no /usr/share/doc/${package}/copyright: a package would lack this licence")
    endif()
endforeach()

set(CPACK_GENERATOR DEB TGZ)
set(CPACK_PACKAGE_NAME ${name})
set(CPACK_PACKAGE_VENDOR "The Colonnade authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "fine-tunes language models on packed rows")
set(CPACK_PACKAGE_CONTACT "${COLONNADE_MAINTAINER}")
set(CPACK_INSTALL_CMAKE_PROJECTS "${PROJECT_BINARY_DIR};colonnade;programs;/")
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_FILE_NAME ${name}-${PROJECT_VERSION}-linux-x86_64)
set(CPACK_OUTPUT_FILE_PREFIX ${PROJECT_BINARY_DIR}/packages)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/debian_files.cmake)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# Opened when they are needed.
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "ca-certificates, libcurl4 | libcurl4t64")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "openmpi-bin, libnccl2")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
"Colonnade trains and fine-tunes decoder transformers (Llama, Mistral, Qwen) on
packed rows: many samples in one long row, kept apart by FlashMask attention,
so that no compute goes into padding.

It reads a Hugging Face model folder or a GGUF file and JSON lines, and writes
a model folder. It runs on the CPU, and on NVIDIA GPUs of compute capability
8.0 or newer with the driver and cuBLASLt.")
configure_file(${CMAKE_CURRENT_LIST_DIR}/copyright ${CMAKE_CURRENT_BINARY_DIR}/copyright COPYONLY)
execute_process(COMMAND git -C ${PROJECT_SOURCE_DIR} log -1 --format=%cD OUTPUT_VARIABLE date ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT date)
    string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)
endif()
configure_file(${CMAKE_CURRENT_LIST_DIR}/changelog.in ${CMAKE_CURRENT_BINARY_DIR}/changelog @ONLY)
set(CPACK_COLONNADE_FILES ${CMAKE_CURRENT_BINARY_DIR})
include(CPack)
