# cmake -DSOURCE=DIR -DHEADER=FILE -P commit.cmake: writes the commit of the work tree in DIR and its date to FILE, if
# they changed.
set(commit "")
set(date "")
if(EXISTS ${SOURCE}/.git) # a tree without history inside another repository has no commit
    execute_process(COMMAND git -C ${SOURCE} describe --always --dirty=+ --abbrev=12 --exclude=*
        OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    execute_process(COMMAND git -C ${SOURCE} log -1 --format=%cs
        OUTPUT_VARIABLE date OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
set(text "#define COLONNADE_COMMIT \"${commit}\"\n#define COLONNADE_COMMIT_DATE \"${date}\"\n")
set(known "")
if(EXISTS ${HEADER})
    file(READ ${HEADER} known)
endif()
if(NOT known STREQUAL text)
    file(WRITE ${HEADER} "${text}")
endif()
