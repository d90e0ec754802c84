#!/usr/bin/env bash
# What a portable build needs of the machine that it runs on: few shared libraries, and no newer ones than those of Ubuntu
# 22.04 and Debian 12.
#   portable_test.sh BUILD
set -euo pipefail
build=$1
program=$build/bin/colonnade
libraries=("$build/lib/colonnade/libcolonnade_cpu.so" "$build/lib/colonnade/glibc-hwcaps/x86-64-v4/libcolonnade_cpu.so")
fail() { echo "portable_test.sh: $*" >&2; exit 1; }

needed() { readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort | tr '\n' ' '; }
[ "$(needed "$program")" = "ld-linux-x86-64.so.2 libc.so.6 libcolonnade_cpu.so libgcc_s.so.1 libm.so.6 libsentencepiece.so.0 libsentencepiece_train.so.0 libstdc++.so.6 " ] ||
    fail "the program needs: $(needed "$program")"
readelf -d "$program" | grep -qF "[\$ORIGIN/../lib/colonnade]" || fail "another RUNPATH: $(readelf -d "$program" | grep PATH)"
for library in "${libraries[@]}"; do
    for name in $(needed "$library"); do
        case $name in ld-linux-x86-64.so.2 | libc.so.6 | libm.so.6 | libgcc_s.so.1 | libstdc++.so.6) ;; *) fail "$library needs $name" ;; esac
    done
done

# The versions that Ubuntu 22.04 has: glibc 2.35, GCC 12.
for file in "$program" "${libraries[@]}"; do
    for limit in GLIBC_2.35 GLIBCXX_3.4.30 CXXABI_1.3.13; do
        newest=$(objdump -T "$file" | grep -oE "\(?${limit%_*}_[0-9.]+" | tr -d '(' | sort -Vu | tail -n 1)
        [ "$(printf '%s\n' "$newest" "$limit" | sort -V | tail -n 1)" = "$limit" ] || fail "$file needs $newest, expected at most $limit"
    done
done

# Attention and layers are those of the library, in the version that the loader chooses: the program has no copy.
undefined=$(nm -DC --undefined-only "$program")
for function in flashmask_forward flashmask_backward swiglu_forward rmsnorm_backward; do
    grep -q "colonnade::$function(" <<<"$undefined" || fail "the program has a $function of its own"
done
# The two versions are interchangeable, and the second has AVX-512.
exports() { nm -D --defined-only "$1" | awk '$2 == "T" { print $3 }' | sort; }
diff <(exports "${libraries[0]}") <(exports "${libraries[1]}") >&2 || fail "the two libcolonnade_cpu export different functions"
count_zmm() { objdump -d --no-show-raw-insn "$1" | grep -c '%zmm' || true; }
[ "$(count_zmm "${libraries[1]}")" -gt 1000 ] || fail "${libraries[1]} has no AVX-512"
echo ok
