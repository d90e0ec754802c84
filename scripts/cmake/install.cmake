# cmake --install build --prefix DIR: libraries, headers and the CMake package, for find_package(colonnade); the program
# colonnade with its manual page and completion. Smaller programs go to libexec/colonnade.
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
        FILES_MATCHING PATTERN "*.h" PATTERN bench EXCLUDE)
endforeach()
install(EXPORT colonnade NAMESPACE colonnade:: FILE colonnade-targets.cmake DESTINATION ${package_dir} COMPONENT libraries)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/colonnade-config.cmake.in
    ${PROJECT_BINARY_DIR}/colonnade-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/colonnade-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/colonnade-config.cmake ${PROJECT_BINARY_DIR}/colonnade-config-version.cmake
    ${CMAKE_CURRENT_LIST_DIR}/FindOpenBLASOpenMP.cmake DESTINATION ${package_dir} COMPONENT libraries)

get_property(programs GLOBAL PROPERTY COLONNADE_PROGRAMS)
foreach(program ${programs})
    install(TARGETS ${program} COMPONENT programs RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/colonnade OPTIONAL)
endforeach()
if(TARGET colonnade)
    install(TARGETS colonnade COMPONENT programs RUNTIME)
    install(DIRECTORY ${PROJECT_BINARY_DIR}/share/ DESTINATION ${CMAKE_INSTALL_DATADIR} COMPONENT programs)
endif()
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT libraries)
