# cmake --install build --prefix DIR: libraries, headers and the CMake package, for find_package(colonnade); the program
# colonnade with its manual page and completion; smaller programs go to libexec/colonnade. Component flashmask is the C
# interface of attention: library, header, pkg-config file, and Python files in LIBDIR/colonnade.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/colonnade)

set(libraries device attention)
set(folders engine/device attention)
if(COLONNADE_WHOLE)
    list(APPEND libraries program io hub ranks engine layers data train)
    set(folders engine attention layers data train)
endif()
foreach(library ${libraries})
    install(TARGETS colonnade_${library} EXPORT colonnade COMPONENT libraries ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
endforeach()
foreach(folder ${folders})
    install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder}/ DESTINATION include/colonnade/${folder} COMPONENT libraries
        FILES_MATCHING PATTERN "*.h" PATTERN bench EXCLUDE PATTERN c_api EXCLUDE)
endforeach()
install(EXPORT colonnade NAMESPACE colonnade:: FILE colonnade-targets.cmake DESTINATION ${package_dir} COMPONENT libraries)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/colonnade-config.cmake.in
    ${PROJECT_BINARY_DIR}/colonnade-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/colonnade-config-version.cmake COMPATIBILITY SameMinorVersion)
foreach(component libraries flashmask)
    install(FILES ${PROJECT_BINARY_DIR}/colonnade-config.cmake ${PROJECT_BINARY_DIR}/colonnade-config-version.cmake
        ${CMAKE_CURRENT_LIST_DIR}/FindOpenBLASOpenMP.cmake DESTINATION ${package_dir} COMPONENT ${component})
endforeach()

install(TARGETS colonnade_flashmask EXPORT colonnade_flashmask
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT flashmask)
install(EXPORT colonnade_flashmask NAMESPACE colonnade:: FILE colonnade-flashmask-targets.cmake
    DESTINATION ${package_dir} COMPONENT flashmask)
install(FILES ${PROJECT_SOURCE_DIR}/attention/c_api/colonnade_flashmask.h DESTINATION include COMPONENT flashmask)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/attention/python/ DESTINATION ${CMAKE_INSTALL_LIBDIR}/colonnade
    COMPONENT flashmask FILES_MATCHING PATTERN "*.py")
file(RELATIVE_PATH prefix_from_pkgconfig "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
configure_file(${CMAKE_CURRENT_LIST_DIR}/colonnade_flashmask.pc.in ${PROJECT_BINARY_DIR}/colonnade_flashmask.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/colonnade_flashmask.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT flashmask)

get_property(programs GLOBAL PROPERTY COLONNADE_PROGRAMS)
foreach(program ${programs})
    install(TARGETS ${program} COMPONENT programs RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/colonnade OPTIONAL)
endforeach()
if(TARGET colonnade)
    install(TARGETS colonnade COMPONENT programs RUNTIME)
    install(DIRECTORY ${PROJECT_BINARY_DIR}/share/ DESTINATION ${CMAKE_INSTALL_DATADIR} COMPONENT programs)
endif()
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT libraries)
