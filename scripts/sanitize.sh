#!/usr/bin/env bash
# A short check under sanitizers: readers of files under AddressSanitizer and UndefinedBehaviorSanitizer, what runs on
# several threads under ThreadSanitizer. scripts/test.sh --preset sanitize|thread-sanitize runs every test.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install_packages.sh
# PackSchedule has no threads: under ThreadSanitizer its tests only take time.
for preset in sanitize thread-sanitize; do
    cmake --preset "$preset"
    cmake --build --preset "$preset" --target chosen_tests
    ctest --preset "$preset" --label-regex chosen --exclude-regex "^PackSchedule[.]" --parallel "$(nproc)"
done
