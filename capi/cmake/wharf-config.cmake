# wharf::wharf is the shared library, wharf::static the static one; both with the headers.
get_filename_component(_wharf_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

foreach(_wharf_kind wharf static)
    if(TARGET wharf::${_wharf_kind})
        continue()
    endif()
    if(_wharf_kind STREQUAL wharf)
        add_library(wharf::wharf SHARED IMPORTED)
        set_target_properties(wharf::wharf PROPERTIES
            IMPORTED_LOCATION "${_wharf_prefix}/lib/libwharf.so.0"
            IMPORTED_SONAME libwharf.so.0)
    else()
        find_package(Threads REQUIRED)
        add_library(wharf::static STATIC IMPORTED)
        set_target_properties(wharf::static PROPERTIES
            IMPORTED_LOCATION "${_wharf_prefix}/lib/libwharf.a"
            INTERFACE_LINK_LIBRARIES "Threads::Threads;gcc_s;util;rt;m;${CMAKE_DL_LIBS}")
    endif()
    set_target_properties(wharf::${_wharf_kind} PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${_wharf_prefix}/include")
endforeach()
unset(_wharf_prefix)
