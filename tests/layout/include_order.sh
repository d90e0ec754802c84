#!/usr/bin/env bash
# Checks that every include follows the order of the rooms. Prints each one that does not, as file:line, and fails.
#   tests/layout/include_order.sh [ROOT]     ROOT: the tree to check, this one by default
set -euo pipefail
cd "${1:-$(dirname "$0")/../..}"

# A room, then the rooms that it may include beside itself. A name stands for its folder without bench/; `...` stands
# for every room named above, with all that these may include.
rooms='
engine/device
engine/io        engine/device
engine/hub       engine/device engine/io
engine/program   engine/device
engine/ranks     engine/device
attention        engine/device
attention/bench  engine/device engine/io engine/program attention
layers           engine/device
layers/bench     engine/device engine/io engine/program layers
data/rows        engine/device engine/io
data/text        engine/device engine/io data/rows
data/samples     engine/device engine/io data/rows data/text
data/store       engine/device engine/io data/rows data/text data/samples
data/packing     engine/device engine/io data/samples data/store attention
data             engine/device engine/io engine/program data/rows data/text data/samples data/store data/packing attention
train/model      engine/device engine/io attention layers data data/rows data/text data/samples data/store data/packing
train/generation ...
train/optimizer  ... engine/ranks
train/objectives ...
train/step       ...
train/config     ...
train/log        ... engine/hub
train/folders    ...
train/report     ...
train/run        ... engine/hub
train/inspect    ... engine/hub
train/selftest   ... engine/hub
train/doctor     ... engine/hub
train/bench      ... engine/hub engine/program
train/program    ... engine/hub engine/program
train            ... engine/program attention/bench
scripts          engine/device engine/io engine/program
'

find engine attention layers data train scripts -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' | sort |
    xargs awk -v rooms="$rooms" '
    BEGIN {
        count = split(rooms, lines, "\n")
        for (i = 1; i <= count; ++i) {
            n = split(lines[i], word, " ")
            if (n == 0) continue
            room = word[1]; known[room] = 1; allowed[room, room] = 1
            for (j = 2; j <= n; ++j) {
                if (word[j] != "...") { allowed[room, word[j]] = 1; continue }
                for (pair in allowed) { split(pair, p, SUBSEP); if (p[1] == above) reach[p[2]] = 1 }
                for (r in reach) allowed[room, r] = 1
            }
            above = room
        }
    }
    function room_of(path,   folder) {  # the longest known folder that holds it
        for (folder = path; sub(/\/[^\/]*$/, "", folder);) if (folder in known) return folder
        return ""
    }
    FNR == 1 { here = room_of(FILENAME); if (here == "") { print FILENAME ": in no room of " "tests/layout/include_order.sh"; bad = 1 } }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        split($0, part, "\""); there = room_of(part[2])
        if (there == "" || (here, there) in allowed) next
        print FILENAME ":" FNR ": " here " must not include " part[2] " (" there ")"
        bad = 1
    }
    END { exit bad }'
