# The part of ICU's data that Colonnade reads, as assembly: where characters and words end, in any language. It has 3 MB,
# libicudata.a 31 MB. Upper and lower case are in libicuuc.a.
#   cmake -DARCHIVE=libicudata.a -DVERSION=72 -DICUPKG=icupkg -DFOLDER=work -P icu_data.cmake     writes work/icu_data.S
file(MAKE_DIRECTORY ${FOLDER}/all ${FOLDER}/parts)
macro(run)
    execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${FOLDER} COMMAND_ERROR_IS_FATAL ANY OUTPUT_VARIABLE printed)
endmacro()

set(name icudt${VERSION}l) # l: little-endian; inside a file all names begin with that of the file
run(ar x ${ARCHIVE} ${name}_dat.o)
run(objcopy -O binary --only-section=.rodata ${name}_dat.o all/${name}.dat)
run(${ICUPKG} --list all/${name}.dat)
# The rules without a language, and all that they name.
string(REGEX MATCHALL "brkitr/(root\\.res|[a-z]+\\.dict|(char|word|line|line_loose|line_normal|sent|title)\\.brk)\n" items "${printed}")
list(JOIN items "" items)
file(WRITE ${FOLDER}/items.txt "${items}")
run(${ICUPKG} --destdir parts --extract items.txt all/${name}.dat)
run(${ICUPKG} --sourcedir parts --add items.txt new ${name}.dat)
file(WRITE ${FOLDER}/icu_data.S ".section .rodata
.balign 16
.globl icudt${VERSION}_dat
icudt${VERSION}_dat: .incbin \"${FOLDER}/${name}.dat\"
.section .note.GNU-stack,\"\",@progbits
")
