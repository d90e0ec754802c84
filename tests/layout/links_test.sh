#!/usr/bin/env bash
# Checks that every relative link and picture in the documentation points at a file of the tree, and every #anchor of
# one at a heading.
set -euo pipefail
cd "$(dirname "$0")/../.."

anchors() { # the anchors of a page's headings, as GitHub makes them
    sed -n 's/^#\+ //p' "$1" | tr '[:upper:]' '[:lower:]' | sed -E 's/`//g; s/\[([^]]*)\]\([^)]*\)/\1/g; s/[^a-z0-9 _-]//g; s/ /-/g'
}

status=0
while IFS=: read -r page line link; do
    target=${link%%#*} anchor=${link#"$target"}
    file=$(dirname "$page")/$target
    [ -n "$target" ] || file=$page
    if [ ! -e "$file" ]; then
        echo "$page:$line: $link: no such file"
        status=1
    elif [ -n "$anchor" ] && ! anchors "$file" | grep -qxF -- "${anchor#\#}"; then
        echo "$page:$line: $link: no such heading"
        status=1
    fi
done < <(find . -name '*.md' -not -path './build*' -not -path './runs/*' | sed 's|^\./||' | sort | while read -r page; do
    grep -noE '\]\([^)]+\)' "$page" | sed -E "s|^([0-9]+):\]\((.*)\)$|$page:\1:\2|" | grep -vE ':(https?|mailto):' || true
done)
exit "$status"
